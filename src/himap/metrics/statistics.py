"""How sure a score is: bootstrap intervals, paired differences, and McNemar's test.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13 (percentile interval); McNemar,
"Note on the sampling error of the difference between correlated proportions". All draws are seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
N_RESAMPLES = 10_000
N_RESAMPLES_STATISTIC = 1_000  # a general statistic is called once a resample, in Python

# Scores that take few values (right/wrong, tenths of a soft accuracy) are resampled by their counts.
_MAX_DISTINCT = 64
_MAX_DRAWS_AT_ONCE = 4_000_000  # 32 MiB of indices
# Below this many discordant pairs the chi-square approximation is poor, and the exact test cheap.
_EXACT_BELOW = 25


class Interval(NamedTuple):
    """A statistic with its percentile-bootstrap interval."""

    value: float
    low: float
    high: float


class McNemar(NamedTuple):
    """How often only one of two runs is right, and the two-sided p-value of "equally often"."""

    n_only_first: int
    n_only_second: int
    p_value: float
    exact: bool


def _percentiles(value: float, resampled: NDArray[Any], level: float) -> Interval:
    tail = 50 * (1 - level)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))


def _scores(values: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores must be a non-empty list, not of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity")
    return scores


def _resampled_means(scores: NDArray[np.float64], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of `n_resamples` draws of N scores with replacement, [n_resamples]."""
    generator = np.random.default_rng(seed)
    n = scores.size
    distinct, counts = np.unique(scores, return_counts=True)
    if distinct.size <= _MAX_DISTINCT:
        # How often each value is drawn is multinomial: the same distribution, for the price of a few numbers.
        return generator.multinomial(n, counts / n, size=n_resamples) @ distinct / n
    at_once = max(1, _MAX_DRAWS_AT_ONCE // n)
    means = np.empty(n_resamples)
    for start in range(0, n_resamples, at_once):
        stop = min(start + at_once, n_resamples)
        means[start:stop] = scores[generator.integers(n, size=(stop - start, n))].mean(axis=1)
    return means


def bootstrap_mean(
    values: ArrayLike, *, level: float = LEVEL, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile-bootstrap interval of the mean of per-sample scores, [N].

    Raises:
        ValueError: no score, or one that is not finite.
    """
    scores = _scores(values)
    return _percentiles(scores.mean(), _resampled_means(scores, n_resamples, seed), level)


def bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of mean(first) - mean(second) for two runs over the same samples, [N] each, drawn in pairs.

    Raises:
        ValueError: unequal lengths, no score, or one that is not finite.
    """
    one, other = _scores(first), _scores(second)
    if one.size != other.size:
        raise ValueError(f"{one.size} and {other.size} scores; a paired comparison needs the same samples")
    return bootstrap_mean(one - other, level=level, n_resamples=n_resamples, seed=seed)


def bootstrap_statistic(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES_STATISTIC,
    seed: int = 0,
) -> Interval:
    """Interval of any statistic of N samples, such as POPE's F1 or MME's points.

    Args:
        statistic: maps sample indices (with repetitions, any length) to a number.
        n: number of samples.
        groups: each sample's group, [N], if whole groups must be drawn (MME's two questions of an image).

    Raises:
        ValueError: no sample, or not one group a sample.
    """
    if n < 1 or (groups is not None and len(groups) != n):
        raise ValueError(f"{n} samples, groups {groups and len(groups)}; at least one, and one group each")
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(range(n) if groups is None else groups):
        members.setdefault(group, []).append(i)
    units = [np.array(indices, dtype=np.intp) for indices in members.values()]
    generator = np.random.default_rng(seed)
    resampled = np.empty(n_resamples)
    for i in range(n_resamples):
        drawn = generator.integers(len(units), size=len(units))
        indices = drawn if groups is None else np.concatenate([units[unit] for unit in drawn])
        resampled[i] = statistic(indices)
    return _percentiles(statistic(np.arange(n)), resampled, level)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's test of two right/wrong runs over the same samples, [N] each.

    Exact (binomial) below 25 discordant pairs, else chi-square with continuity correction.

    Raises:
        ValueError: unequal lengths, no sample, or a score that is neither right (1) nor wrong (0).
    """
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape or one.size == 0:
        raise ValueError(f"{one.size} and {other.size} outcomes; a paired test needs the same samples")
    if not (np.isin(one, (0, 1)).all() and np.isin(other, (0, 1)).all()):
        raise ValueError("McNemar's test needs right/wrong outcomes; bootstrap_difference takes any")
    right, also_right = one.astype(bool), other.astype(bool)
    only_first, only_second = int((right & ~also_right).sum()), int((~right & also_right).sum())
    exact = only_first + only_second < _EXACT_BELOW
    if only_first + only_second == 0:
        return McNemar(0, 0, 1.0, exact)
    from statsmodels.stats.contingency_tables import mcnemar as test

    table = [[int((right & also_right).sum()), only_first], [only_second, int((~right & ~also_right).sum())]]
    return McNemar(only_first, only_second, float(test(table, exact=exact, correction=True).pvalue), exact)
