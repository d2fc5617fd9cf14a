"""How often each place in the image survives, and how much a criterion prefers places. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from himap.analysis.bands import Array
from himap.analysis.outcome import Cell, Outcome, Table
from himap.strategy import Strategy

# A finer map of images of different shapes would show more noise than places.
_MAX_SIDE = 24


def summarise_kept(rows: Sequence[dict[str, Any]], strategies: Sequence[Strategy]) -> Outcome:
    """Survival maps, entropy and raster-order correlation for every stage of every strategy."""
    shape = _shape(rows)
    maps: list[tuple[Cell, ...]] = []
    numbers: list[tuple[Cell, ...]] = []
    metrics: dict[str, float | str | None] = {}
    for place, strategy in enumerate(strategies):
        for stage, at in enumerate(strategy.stages):
            rate = survival(rows, place, stage, shape)
            maps += [
                (strategy.name, at.name, at.layer, *cell, float(rate[cell]))
                for cell in np.ndindex(*shape)
                if not np.isnan(rate[cell])
            ]
            spread, order = entropy(rate), raster_correlation(rate)
            share = float(np.nanmean(rate))
            numbers.append((strategy.name, at.name, at.layer, at.criterion, share, spread, order))
            metrics |= {
                f"entropy_{strategy.name}_{at.name}": spread,
                f"raster_{strategy.name}_{at.name}": order,
            }
    metrics["primary"] = next(iter(metrics))
    return Outcome(
        metrics=metrics,
        tables={
            "survival": Table(("strategy", "stage", "layer", "row", "column", "rate"), maps),
            "position": Table(
                ("strategy", "stage", "layer", "criterion", "kept_share", "entropy", "raster_correlation"),
                numbers,
            ),
        },
        notes=[
            "entropy: of the survivors over the cells, as a share of an even spread's; 1 is no preference.",
            "raster correlation: Spearman's between a cell's place in reading order and its survival; "
            "negative where early cells are preferred.",
        ],
        n_used=len(rows),
    )


def survival(rows: Sequence[dict[str, Any]], strategy: int, stage: int, shape: tuple[int, int]) -> Array:
    """Share of the tokens at each cell that survive, [rows, columns]; NaN where no image has a token."""
    kept, total = np.zeros(shape), np.zeros(shape)
    for row in rows:
        cells = _cells(row["grids"], shape)
        np.add.at(total, tuple(cells.T), 1)
        np.add.at(kept, tuple(cells[row["kept"][strategy][stage]].T), 1)
    with np.errstate(invalid="ignore"):
        return np.asarray(kept / total)


def entropy(rate: Array) -> float:
    """Entropy of the survivors' distribution over the cells, as a share of the largest possible one."""
    share = rate[~np.isnan(rate)]
    if share.size < 2 or share.sum() == 0:
        return 1.0
    share = share / share.sum()
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(share.size))


def raster_correlation(rate: Array) -> float | None:
    """Spearman's correlation of reading order and survival; None where every cell survives alike."""
    from scipy.stats import spearmanr

    values = rate.ravel()
    known = ~np.isnan(values)
    if known.sum() < 2 or np.ptp(values[known]) == 0:
        return None
    return float(spearmanr(np.arange(values.size)[known], values[known]).statistic)


def _shape(rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """The cells of all images where they agree, else a common raster."""
    shapes = {(grid[1], grid[2]) for row in rows for grid in row["grids"]}
    height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    return min(height, _MAX_SIDE), min(width, _MAX_SIDE)


def _cells(grids: Sequence[Sequence[Any]], shape: tuple[int, int]) -> Any:
    """Row and column on the common raster for every image token, [n, 2]; tiles lie upon each other."""
    parts = []
    for _, height, width, _ in grids:
        y, x = np.divmod(np.arange(height * width), width)
        parts.append(np.stack([y * shape[0] // height, x * shape[1] // width], -1))
    return np.concatenate(parts)
