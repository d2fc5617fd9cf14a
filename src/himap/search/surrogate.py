"""A Gaussian process over configurations, and the hypervolume that a guessed accuracy adds to a front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from himap.search.front import Point

Array = np.ndarray[Any, np.dtype[np.float64]]

# Standard normal quadrature: exact for polynomials up to degree 9.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
# More rows make the fit slow and its few parameters no better.
_MOST_ROWS = 200
_LEAST_VARIANCE = 1e-9


class Surrogate:
    """Guesses accuracies from known ones: Matérn 5/2, a length for each axis, noise; fitted with weak priors.

    Args:
        axes: the axis that each column of the rows belongs to.
    """

    def __init__(self, axes: Sequence[int]) -> None:
        self._axes = np.array(axes)
        n_axes = int(self._axes.max()) + 1
        # Logarithms: a length an axis, noise and signal variance of standardised accuracies.
        self._prior = np.array([np.log(0.5)] * n_axes + [-3.0, 0.0])
        self._width = np.array([1.0] * n_axes + [1.5, 1.0])
        self._found = self._prior

    def fit(self, rows: Array, accuracy: Array) -> None:
        """Find lengths and noise.

        Args:
            rows: [N, columns].    accuracy: [N].
        """
        if len(rows) > _MOST_ROWS:
            some = np.random.default_rng(len(rows)).choice(len(rows), _MOST_ROWS, replace=False)
            rows, accuracy = rows[some], accuracy[some]
        values = (accuracy - accuracy.mean()) / _spread(accuracy)

        def loss(found: Array) -> float:
            kernel = self._kernel(rows, rows, found) + np.exp(found[-2]) * np.eye(len(rows))
            try:
                root = np.linalg.cholesky(kernel)
            except np.linalg.LinAlgError:
                return 1e9
            white = np.linalg.solve(root, values)
            likelihood = 0.5 * white @ white + np.log(np.diag(root)).sum()
            return float(likelihood + 0.5 * (((found - self._prior) / self._width) ** 2).sum())

        self._found = minimize(loss, self._found, method="L-BFGS-B", options={"maxiter": 25}).x

    def learn(self, rows: Array, accuracy: Array) -> None:
        """Take these as all that is known."""
        self._rows, self._mean, self._scale = rows, accuracy.mean(), _spread(accuracy)
        self._values = (accuracy - self._mean) / self._scale
        self._solve()

    def believe(self, rows: Array) -> None:
        """Take rows, [M, columns], for known, as good as they are guessed to be: nearby ones promise less."""
        means, _ = self.guess(rows)
        self._rows = np.concatenate([self._rows, rows])
        self._values = np.concatenate([self._values, (means - self._mean) / self._scale])
        self._solve()

    def guess(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the accuracy, without a measurement's noise, [M] each."""
        across = self._kernel(self._rows, rows, self._found)
        white = np.linalg.solve(self._root, across)
        variance = np.exp(self._found[-1]) - (white**2).sum(0)
        means = across.T @ self._weights * self._scale + self._mean
        return means, np.sqrt(np.maximum(variance, _LEAST_VARIANCE)) * self._scale

    def _solve(self) -> None:
        kernel = self._kernel(self._rows, self._rows, self._found)
        self._root = np.linalg.cholesky(kernel + (np.exp(self._found[-2]) + 1e-8) * np.eye(len(kernel)))
        self._weights = np.linalg.solve(self._root.T, np.linalg.solve(self._root, self._values))

    def _kernel(self, one: Array, other: Array, found: Array) -> Array:
        lengths = np.exp(found[:-2])[self._axes]
        one, other = one / lengths, other / lengths
        squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
        distance = np.sqrt(5 * np.maximum(squares, 0))
        return np.exp(found[-1]) * (1 + distance + distance**2 / 3) * np.exp(-distance)


def expected_gain(
    means: Array, deviations: Array, shares: Array, front: Sequence[Point], highest: float
) -> Array:
    """Hypervolume (see `front.hypervolume`) that points are expected to add to a front, [M].

    Args:
        means: of the accuracy as a fraction, [M].    deviations: [M].    shares: [M].
        front: points that do not dominate each other, by growing share.
        highest: what no accuracy exceeds.
    """
    accuracy = np.clip(means[:, None] + deviations[:, None] * _NODES, 0, highest)
    edges = [0.0, *(min(point.share, 1.0) for point in front), 1.0]
    levels = [0.0, *(point.accuracy / 100 for point in front)]
    gain = np.zeros(accuracy.shape)
    for low, high, level in zip(edges, edges[1:], levels, strict=False):
        width = np.maximum(0, high - np.maximum(low, shares))
        gain += width[:, None] * np.maximum(0, accuracy - level)
    return gain @ (_WEIGHTS / _WEIGHTS.sum())


def _spread(accuracy: Array) -> float:
    """Standard deviation, kept from zero where all are equal."""
    return float(accuracy.std()) + 1e-3
