"""Laws of `ehvi`: a known gain is the hypervolume's own, and what is chosen is new and worth its while."""

from __future__ import annotations

import random

import numpy as np
import pytest
import synthetic

from himap.search import promise
from himap.search.front import Point, hypervolume, pareto
from himap.search.group import Units
from himap.search.promise import Candidate, Chooser
from himap.search.space import Params
from himap.search.surrogate import Surrogate, expected_gain

UNITS = Units(synthetic.N_LAYERS, synthetic.N_IMAGE, 17)


def measured(space: synthetic.Space, params: Params) -> Point:
    strategy = space.strategy(params)
    return Point(100 * synthetic.probability(strategy), synthetic.share(strategy))


def test_a_certain_gain_is_the_difference_of_hypervolumes() -> None:
    rng = random.Random(0)
    points = [Point(rng.uniform(0, 100), rng.uniform(0, 1)) for _ in range(12)]
    front = [points[i] for i in pareto(points)]
    new = [Point(rng.uniform(0, 100), rng.uniform(0, 1.1)) for _ in range(50)]
    gains = expected_gain(
        np.array([p.accuracy / 100 for p in new]),
        np.zeros(len(new)),
        np.array([p.share for p in new]),
        front,
        highest=1.0,
    )
    expected = [hypervolume([*front, point]) - hypervolume(front) for point in new]
    assert gains == pytest.approx(expected)
    assert 0 < sum(gain > 0 for gain in expected) < len(new)


def test_a_guess_passes_near_what_is_known_and_doubts_what_is_far() -> None:
    rows = np.array([[x, y] for x in np.linspace(0, 1, 6) for y in np.linspace(0, 1, 6)])
    accuracy = 0.6 + 0.3 * np.sin(3 * rows[:, 0]) * rows[:, 1]
    surrogate = Surrogate([0, 1])
    surrogate.fit(rows, accuracy)
    surrogate.learn(rows, accuracy)
    between = np.array([[0.5, 0.5], [0.25, 0.85]])
    means, deviations = surrogate.guess(between)
    assert means == pytest.approx(0.6 + 0.3 * np.sin(3 * between[:, 0]) * between[:, 1], abs=0.02)
    assert surrogate.guess(np.array([[3.0, -2.0]]))[1][0] > 3 * deviations.max()
    surrogate.believe(np.array([[3.0, -2.0]]))
    assert surrogate.guess(np.array([[3.0, -2.0]]))[1][0] < 2 * deviations.max(), "it is as good as known"


def spent(n: int, seed: int, choose: bool) -> float:
    """Hypervolume after 20 draws and `n` more configurations, chosen or drawn."""
    space, rng = synthetic.space(), random.Random(seed)
    chooser = Chooser(space, synthetic.share, UNITS)
    known = [(params, measured(space, params)) for params in (space.draw(rng) for _ in range(20))]
    for _ in range(n):
        params: Params | None = space.draw(rng)
        if choose:
            taken = {space.key(space.strategy(params)) for params, _ in known}
            params = chooser.choose(known, [], [], taken, rng)
        assert params is not None
        known.append((params, measured(space, params)))
    return hypervolume([point for _, point in known])


def test_what_is_chosen_adds_more_than_chance() -> None:
    gained = [spent(12, seed, True) - spent(12, seed, False) for seed in range(4)]
    assert min(gained) > 0.01


def test_what_is_pending_promises_less() -> None:
    space, rng = synthetic.space(), random.Random(2)
    known = [(params, measured(space, params)) for params in (space.draw(rng) for _ in range(30))]
    chooser = Chooser(space, synthetic.share, UNITS)
    taken = {space.key(space.strategy(params)) for params, _ in known}
    best = chooser.choose(known, [], [], taken, rng)
    assert best is not None and space.contains(best)
    assert space.key(space.strategy(best)) not in taken
    strategy = space.strategy(best)
    candidate = Candidate(best, strategy, space.key(strategy))
    alone, pending = (chooser._gains(known, others, [candidate])[0] for others in ([], [best]))
    assert pending < 0.005 * alone


def test_of_equal_promises_the_one_that_shares_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    space, rng = synthetic.space(), random.Random(1)
    known = [(params, measured(space, params)) for params in (space.draw(rng) for _ in range(30))]
    group = [space.draw(rng) for _ in range(4)]
    seen: list[Candidate] = []
    favourite: list[int] = []

    def gains(self: Chooser, known: object, pending: object, candidates: list[Candidate]) -> list[float]:
        seen[:] = candidates
        return [2.0 if i in favourite else 1.0 for i in range(len(candidates))]

    monkeypatch.setattr(Chooser, "_gains", gains)
    monkeypatch.setattr(promise, "_MOST_EQUAL", 10_000)
    shared = {key: n for params in group for key, n in UNITS.layers(space.strategy(params)).items()}
    chooser = Chooser(space, synthetic.share, UNITS)
    chosen = chooser.choose(known, [], group, set(), random.Random(2))
    assert chosen is not None
    new = [UNITS.new(candidate.strategy, shared) for candidate in seen]
    assert UNITS.new(space.strategy(chosen), shared) == min(new) < 0.5 * sum(new) / len(new)
    favourite.append(new.index(max(new)))
    assert chooser.choose(known, [], group, set(), random.Random(2)) == seen[favourite[0]].params


def test_an_exhausted_space_has_no_choice_left() -> None:
    space = synthetic.space(
        R1=synthetic.DropAxis(0.5, 0.5), R2=synthetic.DropAxis(0.5, 0.5), K2=synthetic.LayerAxis(7, 8)
    )
    chooser = Chooser(space, synthetic.share, UNITS)
    taken = {space.key(space.strategy(params)) for params in space.grid()}
    assert chooser.choose([], [], [], taken, random.Random(0)) is None
