"""From what was measured on each sample to curves with bands. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from himap.analysis.bands import Array, Band, band, limits, resampled_means
from himap.analysis.config import DisruptionConfig, SaliencyConfig
from himap.analysis.outcome import Cell, Outcome, Table
from himap.analysis.suggest import Suggestion, shift, suggest
from himap.errors import UserError

GROUP_CURVES = ("S_sys", "S_img", "S_ins")
PAIR_CURVES = ("S_vv", "S_vt")
_IMAGE, _INSTRUCTION = 1, 2


def summarise_saliency(rows: Sequence[dict[str, Any]], settings: SaliencyConfig) -> Outcome:
    """Curves of Fig. 3 and 4, the shift between the latter two, and the layers that they suggest.

    Raises:
        UserError: no sample is left to summarise.
    """
    accuracy, rows = _chosen(rows, settings.only_correct)
    flow = np.array([row["flow"] for row in rows])  # [N, L, row group, column group]
    tokens = np.array([row["tokens"] for row in rows], dtype=float)
    pairs = np.array([row["pairs"] for row in rows], dtype=float)
    by_group = flow.sum(2 if settings.axis == "sent" else 3) / np.maximum(tokens, 1)[:, None]
    vv, vt = flow[:, :, _IMAGE, _IMAGE], flow[:, :, _INSTRUCTION, _IMAGE]
    if settings.normalise:
        vv = vv / pairs[:, None, _IMAGE, _IMAGE]
        vt = vt / np.maximum(pairs[:, None, _INSTRUCTION, _IMAGE], 1)
    by_pair = np.stack([vv, vt], -1)

    table: list[tuple[Cell, ...]] = []
    for names, values in ((GROUP_CURVES, by_group), (PAIR_CURVES, by_pair)):
        found = band(values)
        if settings.rescale:
            low, span = found.mean.min(), float(np.ptp(found.mean)) or 1.0
            found = Band(*((one - low) / span for one in found))
        table += [
            (name, layer + 1, *(float(one[layer, column]) for one in found))
            for column, name in enumerate(names)
            for layer in range(flow.shape[1])
        ]

    # In the last layer only the last row has a say, and it is text: nothing flows within the image.
    below_last = by_pair[:, :-1]
    mean, resampled = below_last.mean(0), resampled_means(below_last)
    moved = shift(mean[:, 1], mean[:, 0], resampled[..., 1], resampled[..., 0])
    layers = list(range(1, flow.shape[1]))
    proposal = suggest("saliency", layers, mean[:, 1], mean[:, 0], ("S_vt", "S_vv"))
    unit = "per visible pair" if settings.normalise else "summed over pairs"
    weight = "|A dL/dA|" if settings.product == "attention" else "|A A dL/dA| (as the released code)"
    notes = [
        f"saliency: mean over heads of {weight}, L = cross-entropy of the answer's first token "
        f"({settings.label}).",
        f"S_sys, S_img, S_ins: what each group has {settings.axis}, divided by its number of tokens.",
        f"S_vv, S_vt: image rows and instruction rows over image columns, {unit}.",
        "shift: mean log(S_vv / S_vt) over the deeper half of the layers below the last, less that over the "
        "shallower half; positive where the flow moves from text to image.",
    ]
    return Outcome(
        metrics={
            "shift": moved.value,
            "crossing_share": moved.crossing_share,
            "first_token_accuracy": accuracy,
            "K1": proposal.K1,
            "K2": proposal.K2,
            "primary": "shift",
        },
        ci95=[moved.low, moved.high],
        tables={"saliency": Table(("curve", "layer", "mean", "low", "high"), table)},
        notes=notes,
        n_used=len(rows),
        suggestions=[proposal],
    )


def summarise_disruption(
    rows: Sequence[dict[str, Any]], settings: DisruptionConfig, n_layers: int
) -> Outcome:
    """Consistencies of Fig. 5 and 6, the bias ratio, and the layers that it suggests.

    Raises:
        UserError: no sample is left to summarise.
    """
    accuracy, rows = _chosen(rows, settings.only_correct)
    disruptions = settings.disruptions(n_layers)
    label = np.array([row["label"] for row in rows], dtype=float)
    score = np.array([row["score"] for row in rows], dtype=float)
    labels, scores = band(label), band(score)
    table: list[tuple[Cell, ...]] = [
        (*disruption, *(float(one[i]) for one in (*labels, *scores)))
        for i, disruption in enumerate(disruptions)
    ]
    columns = ("flow", "first", "last", "label_consistency", "label_low", "label_high")
    tables = {"disruption": Table((*columns, "score_consistency", "score_low", "score_high"), table)}
    metrics: dict[str, float | str | None] = {"first_token_accuracy": accuracy}
    for flow in settings.flows:
        at = [i for i, disruption in enumerate(disruptions) if disruption.flow == flow]
        metrics[f"label_consistency_{flow}"] = 100 * float(labels.mean[at].mean())
        metrics[f"score_consistency_{flow}"] = 100 * float(scores.mean[at].mean())
    metrics["primary"] = f"score_consistency_{settings.flows[0]}"
    outcome = Outcome(
        metrics=metrics,
        tables=tables,
        notes=[
            "label consistency: share of samples whose likeliest first token stays the same; score "
            f"consistency: mean Jaccard index of the {settings.top} likeliest first tokens before and after.",
            "vr: as many rows as the instruction has, drawn from the image's (the other rows that see it).",
        ],
        n_used=len(rows),
    )
    if {"vt", "vv"} <= set(settings.flows):
        _add_bias(outcome, score, settings, n_layers)
    return outcome


def _chosen(rows: Sequence[dict[str, Any]], only_correct: bool) -> tuple[float, Sequence[dict[str, Any]]]:
    """Percent of the samples whose first token the model gets right, and the samples that count."""
    accuracy = 100 * float(np.mean([row["right"] for row in rows]))
    if only_correct:
        rows = [row for row in rows if row["right"]]
    if not rows:
        raise UserError(
            "analysis.only_correct=true: the model answers no sample right (take more samples, or false)."
        )
    return accuracy, rows


def _add_bias(outcome: Outcome, score: Array, settings: DisruptionConfig, n_layers: int) -> None:
    ranges = settings.ranges(n_layers)
    n = len(ranges)
    at = {flow: slice(i * n, (i + 1) * n) for i, flow in enumerate(settings.flows)}
    resampled = resampled_means(score)

    def error(means: Array, flow: str) -> Array:
        return np.maximum(1 - means[..., at[flow]], settings.floor)

    vt, vv = (error(score.mean(0), flow) for flow in ("vt", "vv"))
    many_vt, many_vv = (error(resampled, flow) for flow in ("vt", "vv"))
    low, high = limits(np.log(many_vv / many_vt))
    bias = np.log(vv / vt)
    outcome.tables["bias"] = Table(
        ("first", "last", "bias_ratio", "low", "high"),
        [(*ranges[i], float(bias[i]), float(low[i]), float(high[i])) for i in range(n)],
    )
    outcome.notes.append(
        f"bias ratio: D = log(E_vv / E_vt) with E = max(1 - score consistency, {settings.floor:g}); positive "
        "where blocking the flow within the image costs more than blocking that to the instruction."
    )
    # A window that reaches the last layer is left out: no later layer reads what its image rows gather.
    inner = [i for i, (_, last) in enumerate(ranges) if last < n_layers]
    if settings.scope == "from_layer" or len(inner) < 4:
        return
    moved = shift(vt[inner], vv[inner], many_vt[:, inner], many_vv[:, inner])
    layers = [ranges[i][1] for i in inner]
    proposal: Suggestion = suggest("disruption", layers, vt[inner], vv[inner], ("E_vt", "E_vv"))
    outcome.suggestions.append(proposal)
    outcome.notes.append("shift: mean D over the deeper half of the blocked places, less the shallower half.")
    outcome.metrics |= {
        "shift": moved.value,
        "crossing_share": moved.crossing_share,
        "K1": proposal.K1,
        "K2": proposal.K2,
        "primary": "shift",
    }
    outcome.ci95 = [moved.low, moved.high]
