"""Front, hypervolume and distances on cases worked by hand and against brute force."""

from __future__ import annotations

import random

import pytest

from himap.search.front import Point, hypervolume, pareto, relate, spread

FRONT = [Point(60, 0.2), Point(80, 0.4), Point(90, 0.8)]


def test_front_equals_brute_force() -> None:
    rng = random.Random(0)
    points = [Point(rng.randint(0, 20), rng.randint(0, 20) / 20) for _ in range(200)]
    brute = {(p.accuracy, p.share) for p in points if not any(q.dominates(p) for q in points)}
    front = [points[i] for i in pareto(points)]
    assert {(p.accuracy, p.share) for p in front} == brute
    assert len(front) == len(brute), "equal points count once"
    assert [p.share for p in front] == sorted(p.share for p in front)


def test_hypervolume_by_hand() -> None:
    assert hypervolume(FRONT) == pytest.approx(0.6 * 0.2 + 0.8 * 0.4 + 0.9 * 0.2)
    assert hypervolume([*FRONT, Point(70, 0.5)]) == pytest.approx(hypervolume(FRONT)), (
        "dominated points add none"
    )
    assert hypervolume([Point(99, 1.0)]) == 0


def test_hypervolume_equals_monte_carlo() -> None:
    rng = random.Random(1)
    points = [Point(100 * rng.random(), rng.random()) for _ in range(8)]
    n = 20_000
    hits = sum(
        any(p.accuracy / 100 >= a and p.share <= s for p in points)
        for a, s in ((rng.random(), rng.random()) for _ in range(n))
    )
    assert hypervolume(points) == pytest.approx(hits / n, abs=0.015)


@pytest.mark.parametrize(
    ("point", "dominated", "gain", "share", "distance"),
    [
        (Point(70, 0.5), True, 10, 0.4, 0.1),
        (Point(80, 0.4), False, 0, 0.4, 0.0),
        (Point(85, 0.5), False, -5, 0.8, -0.05),
        (Point(50, 0.1), False, None, 0.2, -0.1),
        (Point(95, 0.9), False, -5, None, -0.05),
        (Point(55, 0.9), True, 35, 0.2, (0.25**2 + 0.1**2) ** 0.5),
    ],
    ids=["inside", "on", "ahead", "cheaper-than-all", "better-than-all", "deep-inside"],
)
def test_relation_to_a_front(
    point: Point, dominated: bool, gain: float | None, share: float | None, distance: float
) -> None:
    relation = relate(point, FRONT)
    assert relation.dominated is dominated
    assert relation.gain == gain
    assert relation.share == share
    assert relation.distance == pytest.approx(distance)


def test_spread_keeps_both_ends() -> None:
    assert spread(5, 8) == [0, 1, 2, 3, 4]
    assert spread(11, 3) == [0, 5, 10]
    assert spread(11, 1) == [10]
    assert spread(11, 0) == []
    assert len(spread(40, 16)) == 16
