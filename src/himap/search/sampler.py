"""Samplers by name, and the FLOPs-stratified configurations that the model-based ones start from."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from himap.search.config import SearchConfig
from himap.search.group import Layers, Units
from himap.search.space import Params, Space
from himap.strategy import Strategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# Samplers that choose one parameter after the other, so that the range of dK may depend on K1.
DYNAMIC = ("ehvi", "tpe", "random")
# Samplers that learn from seeds; the others have a first generation, a sequence or a raster of their own.
SEEDED = ("ehvi", "tpe", "gp")
# Samplers whose next choice depends on what came of the earlier ones.
LEARNING = ("ehvi", "tpe", "gp", "nsga2")
_N_DRAWS = 4000
# Of so many members of a stratum the one is taken that adds least to a pass over all seeds.
_N_MEMBERS = 64


def make_sampler(config: SearchConfig, n_before: int = 0) -> BaseSampler:
    """Build the sampler that `config` names.

    Args:
        n_before: trials and workers that the study has had already. It moves the random seed, because a
            resumed study and a second worker would otherwise draw the numbers of the first again.
    """
    import optuna

    seed = config.seed + 1_000_003 * n_before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.sampler:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(config.seeds, 1))
            case "gp":
                return optuna.samplers.GPSampler(
                    seed=seed, n_startup_trials=max(config.seeds, 1), warn_independent_sampling=False
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=24)
            case "qmc":
                # The sequence's position lies in the study under its seed, which must stay.
                return optuna.samplers.QMCSampler(
                    seed=config.seed,
                    scramble=True,
                    warn_independent_sampling=False,
                    warn_asynchronous_seeding=False,
                )
            case _:
                # `ehvi` and `grid` are the worker's own; Optuna's sampler never has to choose.
                return optuna.samplers.RandomSampler(seed=seed)


def stratified(
    space: Space, n: int, cost: Callable[[Strategy], float], seed: int, units: Units | None = None
) -> list[Params]:
    """`n` different configurations spread evenly over their cost.

    Uniform draws crowd at cheap configurations; a model that starts from them knows little of the front's
    expensive half. The range of costs is cut into `n` equal strata and each gives one random member; strata
    without a member are made up for by draws from anywhere.

    Args:
        units: where they are evaluated in groups: a stratum gives, of some random members, the one that
            shares most of its layers with those chosen before.
    """
    rng = random.Random(seed)
    draws: dict[str, tuple[float, Params]] = {}
    for _ in range(_N_DRAWS):
        params = space.draw(rng)
        strategy = space.strategy(params)
        draws.setdefault(space.key(strategy), (cost(strategy), params))
    pool = list(draws.values())
    low, high = min(c for c, _ in pool), max(c for c, _ in pool)
    width = (high - low) / n if n and high > low else 1.0
    strata: list[list[Params]] = [[] for _ in range(n)]
    for c, params in pool:
        if n:
            strata[min(int((c - low) / width), n - 1)].append(params)
    filled = [stratum for stratum in strata if stratum]
    if units is None:
        chosen = [rng.choice(stratum) for stratum in filled]
    else:
        chosen = _sharing(filled, space, units, rng)
    rest = [params for _, params in pool if params not in chosen]
    rng.shuffle(rest)
    return chosen + rest[: n - len(chosen)]


def _sharing(strata: list[list[Params]], space: Space, units: Units, rng: random.Random) -> list[Params]:
    """A member of each stratum, in random order, so that a pass over all of them is cheap."""
    rng.shuffle(strata)
    shared: Layers = {}
    chosen = []
    for stratum in strata:
        some = rng.sample(stratum, min(_N_MEMBERS, len(stratum)))
        best = min(some, key=lambda params: units.new(space.strategy(params), shared))
        shared |= units.layers(space.strategy(best))
        chosen.append(best)
    return chosen
