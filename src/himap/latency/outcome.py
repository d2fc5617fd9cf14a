"""From a cell's times to medians, ratios and shares, in the form in which result.json holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from himap.flops import DecoderShape
from himap.latency.cell import Raw
from himap.latency.cost import answer_tflops, prefill_tflops
from himap.latency.memory import MIB, cache_bytes
from himap.latency.shape import Shape
from himap.latency.statistics import median, ratio
from himap.strategy import Strategy

Times = Callable[[str, str], list[float]]
"""(strategy, execution) -> a value each round."""


def summarise(
    raw: Raw,
    strategies: Mapping[str, Strategy],
    reference: str,
    decoder: DecoderShape,
    *,
    weights: int,
    n_bytes: int,
) -> dict[str, Any]:
    """A cell of result.json.

    Args:
        raw: what was measured.
        strategies: by label.
        reference: the label that ratios are taken to.
        decoder: the sizes that FLOPs and cache depend on.
        weights: of the model, in bytes.
        n_bytes: of one number in the cache.

    Returns:
        `shape`; `tower_ms`; `strategies`: label -> measures in ms, each at the execution that is fastest in
        it, with its ratio to the reference's fastest; scoring, FLOPs, memory and energy; `refused`, `notes`;
        and `samples`, all values as they were measured.
    """
    measures = _measures(raw)
    cell: dict[str, Any] = {
        "shape": asdict(raw.shape),
        "reference": reference,
        "tower_ms": asdict(median(raw.tower_ms)),
        "weights_mib": weights / MIB,
        "strategies": {},
        "refused": raw.refused,
        "notes": raw.notes,
        "samples": _samples(raw),
    }
    for name, strategy in strategies.items():
        row: dict[str, Any] = {
            measure: _measured(raw, times, name, reference) for measure, times in measures.items()
        }
        row["scoring"] = _scoring(raw, name, measures["prefill_ms"], reference)
        kind = row["end_to_end_ms"]["execution"]
        cached = kind != "released"
        row["flops"] = _flops(raw.shape, strategy, strategies[reference], decoder, cached=cached)
        taken = raw.peak_bytes[name, kind]
        row["peak_mib"] = None if taken is None else (weights + taken) / MIB
        row["kv_cache_mib"] = cached * cache_bytes(decoder, strategy, raw.shape, n_bytes) / MIB
        readings = raw.energy_j.get(name)
        row["energy_j"] = sorted(readings)[len(readings) // 2] if readings else None
        cell["strategies"][name] = row
    return cell


def _measures(raw: Raw) -> dict[str, Times]:
    """What is reported, from the times that were taken in one round."""

    def prefill(name: str, kind: str) -> list[float]:
        return raw.jobs[name, kind][0]

    def decode(name: str, kind: str) -> list[float]:
        return raw.jobs[name, kind][1]

    def first(name: str, kind: str) -> list[float]:
        return _added(raw.tower_ms, prefill(name, kind))

    measures: dict[str, Times] = {"prefill_ms": prefill, "first_token_ms": first}
    if raw.shape.n_new > 1:
        n_later = raw.shape.n_new - 1
        measures["per_token_ms"] = lambda name, kind: [value / n_later for value in decode(name, kind)]
    measures["end_to_end_ms"] = lambda name, kind: _added(first(name, kind), decode(name, kind))
    return measures


def _added(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _measured(raw: Raw, times: Times, name: str, reference: str) -> dict[str, Any]:
    kinds = {kind: asdict(median(times(own, kind))) for own, kind in raw.jobs if own == name}
    best = _fastest(raw, times, name)
    return {
        **kinds[best],
        "execution": best,
        "ratio": asdict(ratio(times(name, best), times(reference, _fastest(raw, times, reference)))),
        "executions": kinds,
    }


def _fastest(raw: Raw, times: Times, name: str) -> str:
    kinds = [kind for own, kind in raw.jobs if own == name]
    return min(kinds, key=lambda kind: median(times(name, kind)).median)


def _scoring(raw: Raw, name: str, prefill: Times, reference: str) -> dict[str, Any] | None:
    """Scoring in ms and as a share of the reference's fastest prefill; None where nothing is scored."""
    if name not in raw.fixed_ms:
        return None
    kind = raw.fixed_kind[name]
    spent = [a - b for a, b in zip(prefill(name, kind), raw.fixed_ms[name], strict=True)]
    whole = prefill(reference, _fastest(raw, prefill, reference))
    return {**asdict(median(spent)), "execution": kind, "share": asdict(ratio(spent, whole))}


def _flops(
    shape: Shape, strategy: Strategy, reference: Strategy, decoder: DecoderShape, *, cached: bool
) -> dict[str, float]:
    """TFLOPs of the decoder, and their share of the reference's: prefill, later tokens, whole answer."""
    prefill, base = (prefill_tflops(decoder, one, shape) for one in (strategy, reference))
    answer, whole = (answer_tflops(decoder, one, shape, cached=cached) for one in (strategy, reference))
    shares = {"prefill_share": prefill / base, "answer_share": answer / whole}
    if shape.n_new > 1:
        shares["later_share"] = (answer - prefill) / (whole - base)
    return {"prefill_tflops": prefill, "answer_tflops": answer, **shares}


def _samples(raw: Raw) -> dict[str, Any]:
    found: dict[str, Any] = {"tower_ms": raw.tower_ms, "fixed_ms": raw.fixed_ms}
    for (name, kind), (prefill, decode) in raw.jobs.items():
        found.setdefault(name, {})[kind] = {"prefill_ms": prefill, "decode_ms": decode}
    return found
