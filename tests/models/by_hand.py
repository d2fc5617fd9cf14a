"""Independent statements that several ports are compared with."""

from __future__ import annotations

import math

import numpy as np


def bicubic(table: np.ndarray, before: int, after: int) -> np.ndarray:
    """A square grid of places to another: cubic convolution with a = -0.75, edges repeated, centres aligned.

    Args:
        table: [before^2, D].

    Returns:
        [after^2, D].
    """

    def kernel(t: float) -> float:
        t, a = abs(t), -0.75
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    weights = np.zeros((after, before))
    for i in range(after):
        centre = (i + 0.5) * before / after - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(j, 0), before - 1)] += kernel(centre - j)
    grid = table.reshape(before, before, -1)
    return np.einsum("ia,jb,abd->ijd", weights, weights, grid).reshape(after * after, -1)
