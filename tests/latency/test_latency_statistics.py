"""Medians and intervals of repetitions."""

from __future__ import annotations

import random

import pytest

from himap.latency.statistics import median, ratio


def test_the_median_and_the_values_around_it() -> None:
    # Six values: only the outermost two enclose the median with 95 % certainty (1 - 2 / 2**6 = 0.97).
    found = median([5.0, 1.0, 3.0, 100.0, 2.0, 4.0])
    assert (found.median, found.low, found.high) == (3.5, 1.0, 100.0)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    """Whatever the distribution: times are skewed, with stragglers."""
    draw = random.Random(0)
    held = 0
    for _ in range(400):
        found = median([draw.expovariate(1.0) for _ in range(20)])
        held += found.low <= 0.6931 <= found.high
    assert held / 400 >= 0.93


def test_drift_cancels_in_a_ratio() -> None:
    """A machine that grows slower over the rounds slows both alike."""
    reference = [10.0 * 1.1**number for number in range(20)]
    found = ratio([0.4 * value for value in reference], reference)
    assert found.median == pytest.approx(0.4)
    assert found.high - found.low < 1e-9
