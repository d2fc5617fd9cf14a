"""Scores that several benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence

from himap.tasks.base import Sample, Score


def accuracy(samples: Sequence[Sample], right: Sequence[bool | float], notes: Sequence[str] = ()) -> Score:
    """Percent right (or mean soft score), in all and by category."""
    by_category: dict[str, list[float]] = {}
    for sample, one in zip(samples, right, strict=True):
        if sample.category:
            by_category.setdefault(sample.category, []).append(float(one))
    metrics = {"accuracy": 100 * sum(right) / len(right)}
    for name, values in sorted(by_category.items()):
        metrics[f"{name}_accuracy"] = 100 * sum(values) / len(values)
    return Score("accuracy", metrics, tuple(map(float, right)), notes=tuple(notes))
