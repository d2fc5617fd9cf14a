"""Intervals of figures that average within categories first: MME's points, POPE's macro mean."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from himap.metrics.statistics import LEVEL

_N_RESAMPLES = 2_000


def category_interval(
    values: ArrayLike, categories: Sequence[str], groups: Sequence[Hashable] | None = None, *, mean: bool
) -> tuple[float, float]:
    """Percentile-bootstrap interval of the sum, or the mean, over categories of each category's mean value.

    A benchmark's categories are fixed, so samples are drawn within each of them.

    Args:
        values: one a sample, [N].
        categories: each sample's, [N].
        groups: samples that are drawn together, [N]; groups of a category must be equally large.
        mean: the mean over categories instead of the sum.
    """
    scores = np.asarray(values, dtype=float)
    members: dict[str, dict[Hashable, list[float]]] = {}
    for i, category in enumerate(categories):
        group = i if groups is None else groups[i]
        members.setdefault(category, {}).setdefault(group, []).append(scores[i])
    generator = np.random.default_rng(0)
    total = np.zeros(_N_RESAMPLES)
    for by_group in members.values():
        means = np.array([np.mean(one) for one in by_group.values()])
        total += means[generator.integers(len(means), size=(_N_RESAMPLES, len(means)))].mean(axis=1)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(total / len(members) if mean else total, [tail, 100 - tail])
    return float(low), float(high)
