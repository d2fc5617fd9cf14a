"""Laws of the space: what is suggested lies within the axes, and equal configurations have equal keys."""

from __future__ import annotations

import itertools
import random

import optuna
import pytest
import synthetic

from himap.errors import ConfigError
from himap.search.config import DropAxis, LayerAxis
from himap.search.sampler import stratified
from himap.strategy import Stage, Strategy


@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "clipped"])
def test_suggestions_lie_within_the_axes(dynamic: bool) -> None:
    space = synthetic.space(K1=LayerAxis(2, 9), K2=LayerAxis(5, 11), C1=["img2txt", "random"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), directions=["maximize"])
    for _ in range(200):
        params = space.suggest(study.ask(), dynamic=dynamic)
        assert space.contains(params)
        assert list(params) == space.names


def test_draws_and_grid_lie_within_the_axes() -> None:
    space = synthetic.space(R1=DropAxis(0, 0.9, 0.3), R2=DropAxis(0, 0.8, 0.4), C2=["img2img", "img2txt"])
    rng = random.Random(0)
    assert all(space.contains(space.draw(rng)) for _ in range(200))
    grid = list(space.grid())
    # K1 1..6, K2 K1+1..11: 10+9+8+7+6+5 pairs, times 4 x 3 drops and 2 criteria.
    assert len(grid) == 45 * 12 * 2
    assert all(space.contains(params) for params in grid)
    assert len({tuple(params.values()) for params in grid}) == len(grid)


def test_what_is_enqueued_comes_back() -> None:
    space = synthetic.space()
    study = optuna.create_study(directions=["maximize"])
    params = {"K1": 3, "R1": 0.15, "K2": 11, "R2": 0.9}
    study.enqueue_trial(space.fixed(params))
    for dynamic in (True, False):
        study.enqueue_trial(space.fixed(params))
        assert space.suggest(study.ask(), dynamic=dynamic) == params


def test_a_start_takes_what_it_leaves_out_from_the_template() -> None:
    space = synthetic.space()
    template = space.template.stages
    params = space.start(0, {"K1": 3})
    assert params == {"K1": 3, "R1": template[0].drop, "K2": template[1].layer, "R2": template[1].drop}
    for given, message in {
        "K1": (99, r"search.starts.1=\{K1: 99, .*must lie within search.axes"),
        "K3": (3, "search.starts.1=K3: unknown; did you mean"),
        "K2": ("x", "search.starts.1.K2=x: must be a number"),
    }.items():
        with pytest.raises(ConfigError, match=message[1]):
            space.start(1, {given: message[0]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"K1": 2, "R1": 0.0, "K2": 5, "R2": 0.5}, {"K1": 5, "R1": 0.5, "K2": 9, "R2": 0.0, "C1": "img2img"}),
        ({"K1": 1, "R1": 0.0, "K2": 5, "R2": 0.0}, {"K1": 4, "R1": 0.0, "K2": 7, "R2": 0.0}),
        ({"K1": 2, "R1": 0.5, "K2": 5, "R2": 0.5}, {"K1": 2, "R1": 0.501, "K2": 5, "R2": 0.499}),
    ],
    ids=["one-stage-in-either-slot", "nothing-dropped", "rounded-to-the-same-tokens"],
)
def test_equal_configurations_have_equal_keys(one: dict, other: dict) -> None:
    space = synthetic.space()
    assert space.key(space.strategy(one)) == space.key(space.strategy(other))


@pytest.mark.parametrize(
    "change",
    [{"layer": 3}, {"drop": 0.6}, {"criterion": "random"}, {"normalise": True}, {"exclude_self": True}],
    ids=lambda change: next(iter(change)),
)
def test_different_strategies_have_different_keys(change: dict) -> None:
    space = synthetic.space()
    base = {"layer": 2, "drop": 0.5, "criterion": "img2txt"}
    keys = {space.key(Strategy("a", (Stage(**values),))) for values in (base, {**base, **change})}
    assert len(keys) == 2


def test_the_seed_counts_for_random_only() -> None:
    space = synthetic.space()
    keys = {
        (criterion, space.key(Strategy("a", (Stage(2, 0.5, criterion, seed=seed),))))
        for criterion in ("random", "uniform")
        for seed in (0, 1)
    }
    assert len(keys) == 3


def test_baselines_find_their_place_in_the_axes() -> None:
    space = synthetic.space()
    assert space.params_of(synthetic.HIMAP) == {"K1": 2, "R1": 0.5, "K2": 8, "R2": 0.75}
    assert space.params_of(synthetic.NONE) == {"K1": 1, "R1": 0.0, "K2": 2, "R2": 0.0}
    assert space.params_of(synthetic.FASTV) is None, "its criterion is not on the axes"
    searched = synthetic.space(C1=["img2txt", "last2img"])
    assert searched.params_of(synthetic.FASTV) == {"K1": 2, "R1": 0.5, "K2": 3, "R2": 0.0, "C1": "last2img"}


def test_a_baseline_off_the_raster_has_no_place() -> None:
    assert synthetic.space(R1=DropAxis(0, 0.9, 0.3)).params_of(synthetic.HIMAP) is None
    assert synthetic.space(K2=LayerAxis(2, 7)).params_of(synthetic.HIMAP) is None


def test_seeds_fill_every_stratum_of_cost() -> None:
    space = synthetic.space()
    n = 24
    chosen = stratified(space, n, synthetic.share, seed=3)
    shares = sorted(synthetic.share(space.strategy(params)) for params in chosen)
    assert len({space.key(space.strategy(params)) for params in chosen}) == n
    gaps = [b - a for a, b in itertools.pairwise(shares)]
    assert max(gaps) <= 2.01 * (shares[-1] - shares[0]) / (n - 2)
    rng = random.Random(3)
    uniform = sorted(synthetic.share(space.strategy(space.draw(rng))) for _ in range(n))
    assert max(b - a for a, b in itertools.pairwise(uniform)) > max(gaps)
    assert stratified(space, n, synthetic.share, seed=3) == chosen
