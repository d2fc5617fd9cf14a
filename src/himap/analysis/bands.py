"""Averages over samples with bootstrap bands, for many numbers of a sample at once. No torch in here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
N_RESAMPLES = 2_000

Array = NDArray[np.float64]


class Band(NamedTuple):
    """A mean with its percentile-bootstrap band; arrays of one shape."""

    mean: Array
    low: Array
    high: Array


def resampled_means(values: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Array:
    """Means of samples drawn with replacement; whole samples are drawn, so their numbers stay together.

    Args:
        values: [N, ...].

    Returns:
        [n_resamples, ...].

    Raises:
        ValueError: there is no sample.
    """
    samples = np.asarray(values, dtype=np.float64)
    n = len(samples)
    if n == 0:
        raise ValueError("no sample to resample")
    # How often each sample is drawn is multinomial.
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    means = counts @ samples.reshape(n, -1) / n
    return np.asarray(means.reshape(n_resamples, *samples.shape[1:]))


def band(values: ArrayLike, seed: int = 0) -> Band:
    """Mean over samples, [N, ...] to [...], with the band in which it lies at 95 %."""
    samples = np.asarray(values, dtype=np.float64)
    low, high = limits(resampled_means(samples, seed=seed))
    return Band(samples.mean(0), low, high)


def limits(resampled: Array) -> tuple[Array, Array]:
    """Lower and upper end of the band over the first axis."""
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(resampled, [tail, 100 - tail], axis=0)
    return low, high
