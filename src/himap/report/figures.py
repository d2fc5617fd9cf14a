"""The figures of an analysis, drawn from the tables in its folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.files import write_bytes_atomic
from himap.report import survivors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any colour vision; markers and dashes differ as well.
_STYLES = {
    "S_sys": ("#999999", "s", "--", "system"),
    "S_img": ("#0072B2", "o", "-", "image"),
    "S_ins": ("#D55E00", "^", "-.", "instruction"),
    "S_vv": ("#0072B2", "o", "-", "$S_{vv}$ (within the image)"),
    "S_vt": ("#D55E00", "^", "-.", "$S_{vt}$ (image to instruction)"),
    "vt": ("#D55E00", "^", "-.", "visual-textual"),
    "vr": ("#999999", "s", "--", "visual-random"),
    "vv": ("#0072B2", "o", "-", "intra-visual"),
}
_CHOSEN = "#009E73"

Rows = list[dict[str, str]]


def draw(folder: Path) -> list[Path]:
    """Draw everything that an analysis' folder holds, each as PNG and PDF; returns the files."""
    facts = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
    drawn: list[Path] = []
    for name, figure in _figures(folder, facts):
        drawn += save(figure, folder / name)
    return drawn


def _figures(folder: Path, facts: dict[str, Any]) -> Sequence[tuple[str, Figure]]:
    kind = facts["settings"]["kind"]
    if kind == "saliency":
        rows = _read(folder / "saliency.csv")
        return [("fig3_groups", draw_groups(rows, facts)), ("fig4_pairs", draw_pairs(rows, facts))]
    if kind == "disruption":
        rows = _read(folder / "disruption.csv")
        few = len({(row["first"], row["last"]) for row in rows}) < 4
        if few:
            return [("fig5_disruption", draw_bars(rows, facts))]
        bias = folder / "bias.csv"
        return [("fig6_disruption", draw_disruption(rows, _read(bias) if bias.exists() else [], facts))]
    shown = json.loads((folder / "shown.json").read_text(encoding="utf-8"))
    position, maps = _read(folder / "position.csv"), _read(folder / "survival.csv")
    return [
        ("survival", survivors.draw_maps(maps, position, facts)),
        *(
            (f"kept_{number}", survivors.draw_sample(one, folder))
            for number, one in enumerate(shown["samples"])
        ),
    ]


def draw_groups(rows: Rows, facts: dict[str, Any]) -> Figure:
    """Fig. 3: saliency that system, image and instruction tokens send or receive, over the layers."""
    settings = facts["settings"]
    figure, axes = _panels(1)
    _curves(axes[0], rows, ("S_sys", "S_img", "S_ins"))
    unit = "scaled to [0, 1]" if settings["rescale"] else "nats"
    axes[0].set_ylabel(f"saliency {settings['axis']} per token ({unit})")
    _finish(axes[0], f"What each group of tokens has {settings['axis']}", facts)
    return figure


def draw_pairs(rows: Rows, facts: dict[str, Any]) -> Figure:
    """Fig. 4: flow within the image and from the image to the instruction, with the layers suggested."""
    settings = facts["settings"]
    figure, axes = _panels(1)
    _curves(axes[0], rows, ("S_vv", "S_vt"))
    if not settings["rescale"]:
        _log_scale(axes[0], [float(row["mean"]) for row in rows if row["curve"] in ("S_vv", "S_vt")])
    unit = "scaled to [0, 1]" if settings["rescale"] else "nats"
    per = "per visible pair" if settings["normalise"] else "summed"
    axes[0].set_ylabel(f"saliency {per} ({unit})")
    _mark_layers(axes[0], facts)
    _finish(axes[0], "Flow within the image and to the instruction", facts)
    return figure


def draw_bars(rows: Rows, facts: dict[str, Any]) -> Figure:
    """Fig. 5: consistency when a flow is blocked in one of a few ranges of layers."""
    figure, axes = _panels(2)
    flows = facts["settings"]["flows"]
    ranges = list(dict.fromkeys((row["first"], row["last"]) for row in rows))
    width = 0.8 / len(flows)
    for axis, measure in zip(axes, ("label", "score"), strict=True):
        for number, flow in enumerate(flows):
            own = [row for row in rows if row["flow"] == flow]
            colour, _, _, label = _STYLES[flow]
            mean, low, high = (
                [100 * float(row[key]) for row in own]
                for key in (f"{measure}_consistency", f"{measure}_low", f"{measure}_high")
            )
            errors = [
                [max(0.0, m - end) for m, end in zip(mean, low, strict=True)],
                [max(0.0, end - m) for m, end in zip(mean, high, strict=True)],
            ]
            places = [place + (number - (len(flows) - 1) / 2) * width for place in range(len(ranges))]
            bars = axis.bar(places, mean, width * 0.92, yerr=errors, capsize=3, color=colour, label=label)
            axis.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
        axis.set_xticks(range(len(ranges)), [f"layers {first} to {last}" for first, last in ranges])
        axis.set_ylim(0, 112)
        axis.set_ylabel(f"{measure} consistency (%)")
        _finish(axis, _title(measure, facts), facts, layers=False)
    _legend_below(figure, axes[0])
    return figure


def draw_disruption(rows: Rows, bias: Rows, facts: dict[str, Any]) -> Figure:
    """Fig. 6: consistency when a flow is blocked at each place, and the bias ratio D."""
    figure, axes = _panels(3 if bias else 2)
    for axis, measure in zip(axes, ("label", "score"), strict=False):
        for flow in facts["settings"]["flows"]:
            own = [row for row in rows if row["flow"] == flow]
            _curve(
                axis,
                flow,
                [(float(row["first"]) + float(row["last"])) / 2 for row in own]
                if facts["settings"]["scope"] != "from_layer"
                else [float(row["first"]) for row in own],
                *(
                    [100 * float(row[key]) for row in own]
                    for key in (f"{measure}_consistency", f"{measure}_low", f"{measure}_high")
                ),
            )
        axis.set_ylabel(f"{measure} consistency (%)")
        _finish(axis, _title(measure, facts), facts, legend=False)
    if bias:
        axis = axes[2]
        x = [(float(row["first"]) + float(row["last"])) / 2 for row in bias]
        if facts["settings"]["scope"] == "from_layer":
            x = [float(row["first"]) for row in bias]
        mean, low, high = ([float(row[key]) for row in bias] for key in ("bias_ratio", "low", "high"))
        axis.axhline(0, color="black", linewidth=0.8)
        axis.fill_between(x, low, high, color="#CC79A7", alpha=0.25, linewidth=0)
        axis.plot(x, mean, "D-", color="#CC79A7", markersize=5)
        axis.set_ylabel(r"bias ratio $D = \log(E_{vv} / E_{vt})$")
        _mark_layers(axis, facts)
        _finish(axis, "above 0: the image's own flow matters more", facts, legend=bool(facts["suggestions"]))
    _legend_below(figure, axes[0])
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and PDF, atomically, and forget it."""
    from matplotlib import pyplot

    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    for path in files:
        buffer = io.BytesIO()
        # Without a date the same numbers make the same file.
        metadata: Any = {"CreationDate": None} if path.suffix == ".pdf" else None
        figure.savefig(buffer, format=path.suffix[1:], dpi=200, metadata=metadata)
        write_bytes_atomic(path, buffer.getvalue())
    pyplot.close(figure)
    return files


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, n, figsize=(5.4 if n == 1 else 4.4 * n, 3.8), layout="constrained")
    return figure, [axes] if n == 1 else list(axes)


def _curves(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    for name in names:
        own = [row for row in rows if row["curve"] == name]
        columns = ("layer", "mean", "low", "high")
        _curve(axes, name, *([float(row[column]) for row in own] for column in columns))


def _curve(
    axes: Axes, name: str, x: list[float], mean: list[float], low: list[float], high: list[float]
) -> None:
    """One line with its band; points without any flow (the last layer's S_vv) are left out."""
    there = [i for i, value in enumerate(high) if value > 0]
    x, mean, low, high = ([values[i] for i in there] for values in (x, mean, low, high))
    colour, marker, dashes, label = _STYLES[name]
    axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(x, mean, marker=marker, linestyle=dashes, color=colour, markersize=4.5, label=label)


def _log_scale(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis where curves span magnitudes."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_yscale("log")


def _mark_layers(axes: Axes, facts: dict[str, Any]) -> None:
    for suggestion in facts["suggestions"]:
        for name, dashes in (("K1", ":"), ("K2", (0, (5, 2)))):
            layer = suggestion[name]
            if layer is not None:
                axes.axvline(layer, color=_CHOSEN, linestyle=dashes, label=f"suggested {name} = {layer}")


def _finish(
    axes: Axes, title: str, facts: dict[str, Any], *, layers: bool = True, legend: bool = True
) -> None:
    axes.set_title(title, fontsize=10)
    if layers:
        n_layers = facts["n_layers"]
        step = 1 if n_layers <= 12 else 2 if n_layers <= 24 else 4
        axes.set_xticks([1, *range(step if step > 1 else 2, n_layers + 1, step)])
        axes.set_xlim(0.6, n_layers + 0.4)
        axes.set_xlabel(f"decoder layer ({facts['model']}, {facts['n_samples']} samples, 95 % bands)")
    axes.grid(color="#e2e2e2", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend and layers:
        axes.legend(fontsize=8, framealpha=0.9)


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)


def _title(measure: str, facts: dict[str, Any]) -> str:
    settings = facts["settings"]
    what = "same first token" if measure == "label" else f"overlap of the top {settings['top']}"
    scope = {
        "layer": "one layer blocked",
        "window": f"{settings['width']} layers blocked",
        "from_layer": "blocked from a layer on",
    }[settings["scope"]]
    return f"{what}, {scope} ({settings['mode']})"


def _read(path: Path) -> Rows:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
