"""A benchmark's cells as a table, a CSV file and a figure like HiMAP's Fig. 8."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.files import write_atomic, write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cell = dict[str, Any]

MEASURES = {
    "prefill_ms": "prefill",
    "first_token_ms": "first token",
    "per_token_ms": "per new token",
    "end_to_end_ms": "end to end",
}
"""Measures in ms and what they are called."""

# Okabe and Ito's palette: told apart with any colour vision.
_PARTS = {"vision tower": "#999999", "prefill": "#56B4E9", "decoding": "#E69F00"}
_MEASURED, _COUNTED = "#0072B2", "#D55E00"

# Of the longest bar, what a part needs to hold its number.
_ROOM = 0.07

# Of what is printed into a file, where nobody says how wide it is.
_WIDTH = 120

_SHAPE = ("batch_size", "n_system", "n_image", "n_instruction", "n_new")
_COLUMNS = (
    *_SHAPE,
    *("strategy", "measure", "unit", "execution", "fastest", "value", "low", "high"),
    *("ratio", "ratio_low", "ratio_high", "flops_share"),
)


def table(cells: Sequence[Cell]) -> list[list[Any]]:
    """Every number in long form: a row of column names, then one row for each measure and execution.

    Ratios are to the reference's fastest execution, and stand beside the fastest alone.
    """
    return [list(_COLUMNS), *(row for cell in cells for row in _rows(cell))]


def _rows(cell: Cell) -> Iterator[list[Any]]:
    shape = [cell["shape"][name] for name in _SHAPE]
    tower = cell["tower_ms"]
    yield [*shape, "", "tower_ms", "ms", "", True, tower["median"], tower["low"], tower["high"], *_NO_RATIO]
    for name, row in cell["strategies"].items():
        for measure in MEASURES:
            if measure not in row:
                continue
            value = row[measure]
            ratio = [*(value["ratio"][name] for name in ("median", "low", "high"))]
            ratio.append(row["flops"][_FLOPS[measure]])
            for kind, times in value["executions"].items():
                best = kind == value["execution"]
                numbers = [times["median"], times["low"], times["high"]]
                yield [*shape, name, measure, "ms", kind, best, *numbers, *(ratio if best else _NO_RATIO)]
        kind = row["end_to_end_ms"]["execution"]
        if (scoring := row["scoring"]) is not None:
            numbers = [scoring["median"], scoring["low"], scoring["high"]]
            part = scoring["share"]
            ratio = [part["median"], part["low"], part["high"], None]
            yield [*shape, name, "scoring_ms", "ms", scoring["execution"], True, *numbers, *ratio]
        for measure, unit in (("peak_mib", "MiB"), ("kv_cache_mib", "MiB"), ("energy_j", "J")):
            if row[measure] is not None:
                yield [*shape, name, measure, unit, kind, True, row[measure], None, None, *_NO_RATIO]


_NO_RATIO = (None, None, None, None)
_FLOPS = {
    "prefill_ms": "prefill_share",
    "first_token_ms": "prefill_share",
    "per_token_ms": "later_share",
    "end_to_end_ms": "answer_share",
}
"""Measure -> the share of FLOPs that stands beside its ratio; all are the decoder's."""


def write_csv(cells: Sequence[Cell], path: Path) -> None:
    """Write `table` as CSV, atomically."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table(cells))
    write_atomic(path, buffer.getvalue())


def print_latency(cells: Sequence[Cell], model: str, notes: Sequence[str]) -> None:
    """Print a table for each cell, strategies side by side."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    for cell in cells:
        shown = Table(title=f"{model}: {_words(cell)}", box=SIMPLE_HEAD, pad_edge=False)
        shown.add_column("")
        for name in cell["strategies"]:
            shown.add_column(name, justify="right")
        for label, values in _lines(cell):
            shown.add_row(label, *values)
        console.print(shown)
    console.print("medians with 95 % intervals; result.json says how each number was made")
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def _lines(cell: Cell) -> Iterator[tuple[str, list[str]]]:
    """The lines of a cell's table: a label and a text for each strategy."""
    rows = list(cell["strategies"].values())
    reference = cell["reference"]
    yield "vision tower (ms)", [_interval(cell["tower_ms"])] * len(rows)
    for measure, label in MEASURES.items():
        if measure not in rows[0]:
            continue
        yield f"{label} (ms)", [_interval(row[measure]) for row in rows]
        # Its own ratio is 1 in every round.
        own = [name == reference for name in cell["strategies"]]
        ratios = [_percent(row[measure]["ratio"]) for row in rows]
        yield f"  % of {reference}", ["100" if it else ratio for it, ratio in zip(own, ratios, strict=True)]
        yield "  FLOPs, %", [_number(100 * row["flops"][_FLOPS[measure]]) for row in rows]
        if any(len(row[measure]["executions"]) > 1 for row in rows):
            yield "  execution", [row[measure]["execution"] for row in rows]
    parts = [row["scoring"] for row in rows]
    if any(parts):
        yield "scoring, % prefill", ["" if part is None else _percent(part["share"]) for part in parts]
    for measure, label in (("peak_mib", "peak memory (MiB)"), ("kv_cache_mib", "KV cache (MiB)")):
        yield label, ["" if row[measure] is None else f"{row[measure]:,.1f}" for row in rows]
    if any(row["energy_j"] is not None for row in rows):
        yield "energy (J)", [f"{row['energy_j']:.1f}" for row in rows]


def _interval(value: dict[str, float]) -> str:
    return f"{_number(value['median'])} [{_number(value['low'])}, {_number(value['high'])}]"


def _percent(value: dict[str, float]) -> str:
    median, low, high = (100 * value[name] for name in ("median", "low", "high"))
    return f"{_number(median)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    """Three digits, and all before the point."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _words(cell: Cell) -> str:
    shape = cell["shape"]
    prompt = f"{shape['n_system']} + {shape['n_image']} + {shape['n_instruction']} tokens"
    return f"batch {shape['batch_size']}, {prompt}, {shape['n_new']} new"


def draw_latency(cells: Sequence[Cell], model: str, path: Path) -> None:
    """Write latency.png (or .pdf, by the name), atomically: a row for each cell.

    On the left the time of an answer in its parts, on the right the prefill's share of the reference's beside
    the share of its FLOPs.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (10, 0.6 + 3.2 * len(cells))
    figure, axes = pyplot.subplots(len(cells), 2, figsize=size, layout="constrained", squeeze=False)
    for (left, right), cell in zip(axes, cells, strict=True):
        _draw_parts(left, cell)
        _draw_shares(right, cell)
        for axis in (left, right):
            axis.set_axisbelow(True)
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
    for axis in axes[0]:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=3, frameon=False)
    figure.suptitle(f"{model}, {cells[0]['environment']['device']}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=160)
    pyplot.close(figure)
    write_bytes_atomic(path, buffer.getvalue())


def _draw_parts(axes: Axes, cell: Cell) -> None:
    from matplotlib.patheffects import withStroke

    names = list(cell["strategies"])
    left = [0.0] * len(names)
    # A narrower part has no room for its number, which stands in the table.
    room = _ROOM * max(sum(_parts(cell, name).values()) for name in names)
    for part, colour in _PARTS.items():
        width = [_parts(cell, name)[part] for name in names]
        bars = axes.barh(names, width, left=left, color=colour, edgecolor="white", label=part)
        texts = [_number(value) if value > room else "" for value in width]
        white = [withStroke(linewidth=2.5, foreground="white")]
        axes.bar_label(bars, texts, label_type="center", fontsize=8, path_effects=white, zorder=5)
        left = [a + b for a, b in zip(left, width, strict=True)]
    ends = [cell["strategies"][name]["end_to_end_ms"] for name in names]
    axes.errorbar(left, names, xerr=_errors(ends), fmt="none", color="black", capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(_words(cell), fontsize=9)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)


def _errors(values: Sequence[dict[str, float]], scale: float = 1.0) -> list[list[float]]:
    return [[scale * abs(value["median"] - value[end]) for value in values] for end in ("low", "high")]


def _parts(cell: Cell, name: str) -> dict[str, float]:
    """An answer's time in the execution that is fastest end to end, cut into parts that add up to it."""
    row = cell["strategies"][name]
    kind = row["end_to_end_ms"]["execution"]
    whole = row["end_to_end_ms"]["median"]
    tower = cell["tower_ms"]["median"]
    prefill = row["prefill_ms"]["executions"][kind]["median"]
    later = max(0.0, whole - tower - prefill) if "per_token_ms" in row else 0.0
    return {"vision tower": tower, "prefill": prefill, "decoding": later}


def _draw_shares(axes: Axes, cell: Cell) -> None:
    rows = cell["strategies"]
    ratios = [row["prefill_ms"]["ratio"] for row in rows.values()]
    measured = [100 * ratio["median"] for ratio in ratios]
    counted = [100 * row["flops"]["prefill_share"] for row in rows.values()]
    above, below = ([at + move for at in range(len(rows))] for move in (-0.2, 0.2))
    time = axes.barh(
        above, measured, 0.38, color=_MEASURED, xerr=_errors(ratios, 100), capsize=3, label="time"
    )
    flops = axes.barh(below, counted, 0.38, color=_COUNTED, hatch="xx", edgecolor="white", label="FLOPs")
    for bars in (time, flops):
        axes.bar_label(bars, fmt="%.1f", padding=6, fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    # Room for the numbers behind the bars.
    axes.set_xlim(0, 1.15 * max([100 * ratio["high"] for ratio in ratios] + counted))
    axes.set_xlabel(f"prefill, % of {cell['reference']}")
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
