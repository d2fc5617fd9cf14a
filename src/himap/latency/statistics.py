"""Medians with intervals that assume nothing about how times are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Median:
    """A median and the two measured values that enclose the true one with at least 95 % certainty."""

    median: float
    low: float
    high: float


def median(values: Sequence[float]) -> Median:
    """Median of independent repetitions, with its order-statistic interval.

    Args:
        values: at least six.
    """
    from scipy.stats import quantile_test

    found = quantile_test(values, p=0.5)
    low, high = found.confidence_interval(0.95)
    ordered = sorted(values)
    middle = len(ordered) // 2
    centre = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return Median(float(centre), float(low), float(high))


def ratio(values: Sequence[float], reference: Sequence[float]) -> Median:
    """Median of what each round's value is of the same round's reference: drift of the machine cancels."""
    return median([value / base for value, base in zip(values, reference, strict=True)])
