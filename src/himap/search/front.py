"""Arithmetic on points of (accuracy, FLOPs share): Pareto front, hypervolume, distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A measured configuration: `accuracy` in percent (more is better), `share` of FLOPs (less is better)."""

    accuracy: float
    share: float

    def dominates(self, other: Point) -> bool:
        """At least as good in both objectives and better in one."""
        no_worse = self.accuracy >= other.accuracy and self.share <= other.share
        return no_worse and (self.accuracy > other.accuracy or self.share < other.share)


def pareto(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, by growing share; of equal points only the first."""
    order = sorted(range(len(points)), key=lambda i: (points[i].share, -points[i].accuracy, i))
    front: list[int] = []
    best = -math.inf
    for i in order:
        if points[i].accuracy > best:
            front.append(i)
            best = points[i].accuracy
    return front


def hypervolume(points: Sequence[Point]) -> float:
    """Area dominated by the points up to the reference (accuracy 0 %, share 1), in [0, 1] for percentages.

    Accuracy counts as a fraction (percent / 100); points beyond the reference add nothing.
    """
    front = [points[i] for i in pareto(points) if points[i].share < 1 and points[i].accuracy > 0]
    area = 0.0
    for point, share_after in zip(front, [*(p.share for p in front), 1.0][1:], strict=True):
        area += point.accuracy / 100 * (share_after - point.share)
    return area


def spread(n: int, most: int) -> list[int]:
    """At most `most` of the indices 0..n-1, evenly spread, both ends included."""
    if n <= most:
        return list(range(n))
    if most == 1:
        return [n - 1]
    return [] if most == 0 else sorted({round(i * (n - 1) / (most - 1)) for i in range(most)})


@dataclass(frozen=True)
class Relation:
    """Where a point lies relative to a front.

    Attributes:
        dominated: some point of the front is at least as good in both objectives and better in one.
        gain: accuracy points that the front has more at no more FLOPs (negative: less; None: nothing there).
        share: least FLOPs share of the front at no less accuracy (None: the front does not reach it).
        distance: from the point to the edge of what the front dominates, with accuracy / 100 and the share as
            axes; positive inside (dominated), negative outside (the point is ahead of the front).
    """

    dominated: bool
    gain: float | None
    share: float | None
    distance: float


def relate(point: Point, front: Sequence[Point]) -> Relation:
    """Compare a point with a front; see `Relation`."""
    cheaper = [p.accuracy for p in front if p.share <= point.share]
    better = [p.share for p in front if p.accuracy >= point.accuracy]
    inside = bool(cheaper) and max(cheaper) >= point.accuracy
    return Relation(
        dominated=any(p.dominates(point) for p in front),
        gain=max(cheaper) - point.accuracy if cheaper else None,
        share=min(better) if better else None,
        distance=_depth(point, front) if inside else -_height(point, front),
    )


def _height(point: Point, front: Sequence[Point]) -> float:
    """Distance from a point outside to the region that the front dominates."""
    return min(
        (
            math.hypot(max(0.0, point.accuracy - p.accuracy) / 100, max(0.0, p.share - point.share))
            for p in front
        ),
        default=math.inf,
    )


def _depth(point: Point, front: Sequence[Point]) -> float:
    """Distance from a point inside the dominated region to its staircase edge."""
    stairs = [front[i] for i in pareto(front)]
    # The edge's inner corners lie between neighbours: as cheap as the right one, as accurate as the left one.
    shares = [p.share for p in stairs] + [math.inf]
    accuracies = [-math.inf] + [p.accuracy for p in stairs]
    # Leaving the region means being cheaper than `share` while more accurate than what is left of it.
    return min(
        math.hypot(max(0.0, accuracy - point.accuracy) / 100, max(0.0, point.share - share))
        for share, accuracy in zip(shares, accuracies, strict=True)
    )
