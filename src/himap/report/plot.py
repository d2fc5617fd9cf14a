"""The picture of a sweep: accuracy over FLOPs, with front, held-out intervals and the paper's points."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from himap.files import write_bytes_atomic
from himap.report.compare import Comparison, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart with any colour vision; markers differ as well.
_GREY, _BLUE, _ORANGE, _GREEN, _RED, _PURPLE = (
    "#999999",
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
)
_BASELINE_STYLES = ((_RED, "*", 17), (_GREEN, "D", 9), (_ORANGE, "s", 9), (_PURPLE, "^", 10))
_LABELS = {"none": "none (unpruned)", "fastv": "FastV", "himap": "HiMAP (paper)"}
_SHORT = {"none": "unpruned", "fastv": "FastV", "himap": "HiMAP"}
_STYLE_OF = {"himap": 0, "none": 1, "fastv": 2}


def label(name: str) -> str:
    """How a baseline is called in a picture."""
    return _LABELS.get(name, name)


def draw_pareto(comparison: Comparison, path: Path) -> None:
    """Write pareto.png (or .pdf, by the name) of a sweep, atomically."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.2, 5.4), layout="constrained")
    _draw_trials(axes, comparison)
    _draw_front(axes, comparison)
    _draw_baselines(axes, comparison)

    study = comparison.outcome.study
    metric = metric_name(comparison.outcome)
    unit = " (%)" if "accuracy" in metric else ""
    first = next(iter([*comparison.outcome.trials, *comparison.outcome.baselines.values()])).result
    axes.set_title(f"{first['model']} on {first['task']}: {len(comparison.outcome.trials)} configurations")
    cost = "image tokens, paper's Eq. 10" if study["search"]["flops"] == "paper" else "decoder's prefill"
    axes.set_xlabel(f"FLOPs left of the unpruned model (%; {cost})")
    axes.set_ylabel(f"{metric}{unit}")
    axes.set_xlim(0, 103)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower right", framealpha=0.95)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=160)
    pyplot.close(figure)
    write_bytes_atomic(path, buffer.getvalue())


def _draw_trials(axes: Axes, comparison: Comparison) -> None:
    trials = comparison.outcome.trials
    n = trials[0].result["n_samples"] if trials else 0
    axes.plot(
        [100 * trial.point.share for trial in trials],
        [trial.point.accuracy for trial in trials],
        "o",
        color=_GREY,
        markersize=4,
        alpha=0.6,
        markeredgewidth=0,
        label=f"searched ({n} {comparison.outcome.study['split']} samples)",
    )


def _draw_front(axes: Axes, comparison: Comparison) -> None:
    front = comparison.front
    axes.step(
        [100 * trial.point.share for trial, _ in front],
        [trial.point.accuracy for trial, _ in front],
        where="post",
        color=_GREY,
        linewidth=1.2,
        label="front of the search",
    )
    checked = [there for _, there in front if there is not None]
    if checked:
        axes.errorbar(
            [100 * there.point.share for there in checked],
            [there.point.accuracy for there in checked],
            yerr=[
                [max(0.0, there.point.accuracy - there.low) for there in checked],
                [max(0.0, there.high - there.point.accuracy) for there in checked],
            ],
            fmt="o",
            color=_BLUE,
            markersize=6,
            capsize=3,
            linewidth=1.4,
            label=f"front, held out ({checked[0].n_samples} samples, 95 % interval)",
        )


def _draw_baselines(axes: Axes, comparison: Comparison) -> None:
    from matplotlib.patheffects import withStroke

    for i, baseline in enumerate(comparison.baselines):
        colour, marker, size = _BASELINE_STYLES[_STYLE_OF.get(baseline.name, i) % len(_BASELINE_STYLES)]
        there = baseline.heldout
        point = there.point if there else baseline.search
        error = None
        if there:
            error = [[max(0.0, point.accuracy - there.low)], [max(0.0, there.high - point.accuracy)]]
        axes.errorbar(
            [100 * point.share],
            [point.accuracy],
            yerr=error,
            fmt=marker,
            color=colour,
            markersize=size,
            markeredgecolor="black",
            markeredgewidth=0.8,
            capsize=3,
            zorder=5,
            label=label(baseline.name) + (", held out" if there else ""),
        )
        right = point.share > 0.9
        axes.annotate(
            _SHORT.get(baseline.name, baseline.name),
            (100 * point.share, point.accuracy),
            xytext=(-11 if right else 11, -16 if right else -5),
            textcoords="offset points",
            horizontalalignment="right" if right else "left",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            zorder=6,
        )
        if baseline.key == "plain":
            axes.axhline(point.accuracy, color=colour, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
