"""Intervals of figures that average over categories first: MME's points, POPE's macro mean."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from himap.metrics.statistics import bootstrap_statistic


def category_interval(
    values: ArrayLike, categories: Sequence[str], groups: Sequence[Hashable] | None = None, *, mean: bool
) -> tuple[float, float]:
    """Bootstrap interval of the sum, or the mean, over categories of each category's mean value.

    Args:
        values: one a sample, [N].
        categories: each sample's, [N].
        groups: samples that are drawn together, [N].
        mean: the mean over categories instead of the sum.
    """
    scores = np.asarray(values, dtype=float)
    names, codes = np.unique(np.asarray(categories), return_inverse=True)

    def statistic(drawn: NDArray[np.intp]) -> float:
        n = np.bincount(codes[drawn], minlength=len(names))
        total = np.bincount(codes[drawn], weights=scores[drawn], minlength=len(names))
        # A category that a draw misses (a tiny run) is left out of the mean.
        present = n > 0
        means = total[present] / n[present]
        return float(means.mean() if mean else means.sum())

    interval = bootstrap_statistic(statistic, len(scores), groups=groups)
    return interval.low, interval.high
