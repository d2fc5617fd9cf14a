"""Pictures of kept image tokens: one sample stage by stage, and how often each place survives."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DIM = (0.08, 0.08, 0.08, 0.78)
_EDGE = "#E69F00"


def draw_sample(sample: dict[str, Any], folder: Path) -> Figure:
    """The images of a sample, and for each stage the same with dropped patches dimmed.

    Args:
        sample: an entry of shown.json.
        folder: where its images lie.
    """
    pyplot = _pyplot()
    images = [pyplot.imread(folder / name) for name in sample["images"]]
    # Grids that show the same part of an image (a tile and the overview) get panels of their own.
    layers = _layers(sample["grids"])
    n_rows, n_columns = len(layers), 1 + len(sample["stages"])
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    figure, axes = pyplot.subplots(
        n_rows,
        n_columns,
        figsize=(2.6 * n_columns, (2.6 * tallest + 0.3) * n_rows + 0.8),
        squeeze=False,
        layout="constrained",
    )
    starts = _starts(sample["grids"])
    for row, members in enumerate(layers):
        image = images[sample["grids"][members[0]][0]]
        n_here = sum(sample["grids"][i][1] * sample["grids"][i][2] for i in members)
        for column, axis in enumerate(axes[row]):
            axis.imshow(image, extent=(0, 1, 1, 0))
            title = f"all {n_here} image tokens"
            if column:
                stage = sample["stages"][column - 1]
                kept = set(stage["kept"])
                n_kept = 0
                for i in members:
                    own = {place - starts[i] for place in kept if starts[i] <= place < starts[i + 1]}
                    n_kept += len(own)
                    _dim(axis, sample["grids"][i], own)
                title = f"after layer {stage['layer']} ({stage['criterion']}): {n_kept}"
            # Last, for every picture laid over the image brings an aspect of its own.
            axis.set_aspect(image.shape[0] / image.shape[1])
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    choices = f" ({', '.join(sample['choices'])})" if sample["choices"] else ""
    question = textwrap.fill(sample["question"] + choices, 34 * n_columns)
    answers = (
        f"right: {sample['reference']}    without pruning: {sample['plain']}    pruned: {sample['pruned']}"
    )
    figure.suptitle(f"{question}\n{textwrap.fill(answers, 40 * n_columns)}", fontsize=10)
    return figure


def draw_maps(
    maps: Sequence[dict[str, str]], position: Sequence[dict[str, str]], facts: dict[str, Any]
) -> Figure:
    """How often each cell survives, one panel a strategy and stage, on one colour scale."""
    import numpy as np

    pyplot = _pyplot()
    n_columns = min(4, len(position))
    n_rows = math.ceil(len(position) / n_columns)
    figure, axes = pyplot.subplots(
        n_rows, n_columns, figsize=(2.6 * n_columns + 0.8, 3.0 * n_rows), squeeze=False, layout="constrained"
    )
    shape = (max(int(row["row"]) for row in maps) + 1, max(int(row["column"]) for row in maps) + 1)
    drawn = None
    for axis, entry in zip(axes.flat, position, strict=False):
        grid = np.full(shape, np.nan)
        for row in maps:
            if (row["strategy"], row["stage"]) == (entry["strategy"], entry["stage"]):
                grid[int(row["row"]), int(row["column"])] = float(row["rate"])
        drawn = axis.imshow(100 * grid, vmin=0, vmax=100, cmap="viridis")
        order = f"{float(entry['raster_correlation']):+.2f}" if entry["raster_correlation"] else "none"
        axis.set_title(
            f"{entry['strategy']}: {entry['criterion']} after {entry['layer']}\n"
            f"entropy {float(entry['entropy']):.3f}, raster {order}",
            fontsize=9,
        )
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in list(axes.flat)[len(position) :]:
        axis.set_axis_off()
    if drawn is not None:
        figure.colorbar(drawn, ax=axes, label="survives (% of samples)", shrink=0.8)
    figure.suptitle(
        f"Where image tokens survive ({facts['model']}, {facts['n_samples']} samples)", fontsize=11
    )
    return figure


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _starts(grids: Sequence[Sequence[Any]]) -> list[int]:
    """Ordinal of each grid's first token, and the number of all tokens."""
    starts = [0]
    for grid in grids:
        starts.append(starts[-1] + grid[1] * grid[2])
    return starts


def _layers(grids: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Grids that can share a picture: neighbours of one image that do not lie over each other."""
    layers: list[list[int]] = []
    for i, (image, _, _, box) in enumerate(grids):
        fits = bool(layers) and all(grids[j][0] == image and _apart(grids[j][3], box) for j in layers[-1])
        if fits:
            layers[-1].append(i)
        else:
            layers.append([i])
    return layers


def _apart(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    if one is None or other is None:
        return False
    eps = 1e-6
    return (
        one[2] <= other[0] + eps
        or other[2] <= one[0] + eps
        or one[3] <= other[1] + eps
        or other[3] <= one[1] + eps
    )


def _dim(axes: Axes, grid: Sequence[Any], kept: set[int]) -> None:
    """Darken the dropped cells of a grid; tokens without a place become a strip below the picture."""
    import numpy as np

    _, rows, columns, box = grid
    if box is None:
        box = (0.0, 1.02, 1.0, 1.12)
    alive = np.zeros(rows * columns, dtype=bool)
    alive[sorted(kept)] = True
    shade = np.zeros((rows, columns, 4))
    shade[~alive.reshape(rows, columns)] = _DIM
    left, top, right, bottom = box
    axes.imshow(shade, extent=(left, right, bottom, top), interpolation="nearest", aspect="auto", zorder=2)
    axes.plot(
        [left, right, right, left, left],
        [top, top, bottom, bottom, top],
        color=_EDGE,
        linewidth=0.6,
        zorder=3,
    )
    axes.set_xlim(min(0.0, left), max(1.0, right))
    axes.set_ylim(max(1.0, bottom), min(0.0, top))
