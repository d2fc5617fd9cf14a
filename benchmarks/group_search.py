"""Does a sweep in groups find as good a front as one trial by trial?

Runs whole studies, as the worker does but in memory, on made accuracies: the smooth stand-in of the tests,
and a table of the embedded model (benchmarks/results/group_search_table.json, made by `--measure 320`)
between whose points it interpolates. For each size of group: the hypervolume of the true accuracies after 64
and 100 trials, its paired difference to the study trial by trial with the same seed, and how often cheaper
the passes are. Keeps benchmarks/results/group_search.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import random
import statistics
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from scipy.interpolate import RBFInterpolator
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "search"))
import synthetic

from himap.commands.sweep import SweepConfig, plan
from himap.config.compose import compose
from himap.files import write_json
from himap.progress import bar
from himap.result import environment
from himap.search.front import Point, hypervolume
from himap.search.group import MOST, size
from himap.search.promise import Chooser
from himap.search.propose import Proposer, known_of, waiting
from himap.search.sampler import DYNAMIC, LEARNING, make_sampler
from himap.search.space import Params
from himap.search.study import Sweep, first_configurations
from himap.strategy import Strategy

RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / "group_search_table.json"
GROUPS: tuple[int | str, ...] = (1, "auto", 8, 16, 32)
MARKS = (64, 100)
N_SAMPLES = 256
NUMBERS = (
    *(f"hypervolume_{mark}" for mark in MARKS),
    "units_apart_to_units_in_groups",
    "units_apart_to_units_of_first_64_in_one_pass",
)
Accuracy = Callable[[Params], float]
"""The true share of right answers of a configuration, 0 to 1."""


def features(params: Params) -> list[float]:
    kept = [1 - float(params["R1"]), (1 - float(params["R1"])) * (1 - float(params["R2"]))]
    return [int(params["K1"]) / 12, int(params["K2"]) / 12, *(math.log(share + 0.01) / 4 for share in kept)]


def surfaces(sweep: Sweep) -> dict[str, Accuracy]:
    """Name -> true accuracy."""
    found: dict[str, Accuracy] = {"smooth": lambda p: synthetic.probability(sweep.space.strategy(p))}
    if TABLE.exists():
        rows = json.loads(TABLE.read_text())["rows"]
        points = np.array([features(row) for row in rows])
        values = np.array([row["accuracy"] / 100 for row in rows])
        between = RBFInterpolator(points, values, kernel="thin_plate_spline", smoothing=1e-3)
        found["embedded model"] = lambda p: float(np.clip(between(np.array([features(p)]))[0], 0, 1))
    return found


def study(sweep: Sweep, group: int | str, accuracy: Accuracy) -> tuple[list[Point], list[list[Strategy]]]:
    """The true points in the order of the trials, and the strategies of each pass."""
    config, space = sweep.config, sweep.space
    found = optuna.create_study(
        directions=["maximize", "minimize"], sampler=make_sampler(config, config.seed)
    )
    proposer = Proposer(space, config.sampler, config.seed, Chooser(space, sweep.cost, sweep.units))
    for params in first_configurations(sweep):
        found.enqueue_trial(space.fixed(params), skip_if_exists=True)
    points: list[Point] = []
    passes: list[list[Strategy]] = []
    while len(points) < config.trials:
        states = [trial.state for trial in found.get_trials(deepcopy=False)]
        left = config.trials - len(points)
        n_known = states.count(TrialState.COMPLETE) if config.sampler in LEARNING else None
        n = size(MOST, left, 1, states.count(TrialState.WAITING), n_known)
        taken: list[tuple[Any, Params]] = []
        n_copies = 0
        while len(taken) < min(n if group == "auto" else int(group), left):
            now = found.get_trials(deepcopy=False)
            if (proposer.own or n_copies >= 8) and not waiting(now):
                chosen = proposer.choose(now, [params for _, params in taken])
                assert chosen is not None
                found.enqueue_trial(space.fixed(chosen))
            trial = found.ask()
            params = space.suggest(trial, dynamic=config.sampler in DYNAMIC)
            key = space.key(space.strategy(params))
            if key in known_of(found.get_trials(deepcopy=False)):
                trial.set_user_attr("copy_of", 0)
                found.tell(trial, state=TrialState.FAIL)
                n_copies += 1
                continue
            trial.set_user_attr("key", key)
            taken.append((trial, params))
            n_copies = 0
        for trial, params in taken:
            true, share = accuracy(params), sweep.cost(space.strategy(params))
            luck = random.Random(f"{config.seed} {space.key(space.strategy(params))}")
            n_right = sum(luck.random() < true for _ in range(N_SAMPLES))
            found.tell(trial, (100 * n_right / N_SAMPLES, share))
            points.append(Point(100 * true, share))
        passes.append([space.strategy(params) for _, params in taken])
    return points, passes


def summary(values: list[float]) -> dict[str, float]:
    mean, half = statistics.mean(values), 0.0
    if len(values) > 1:
        half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": round(mean, 5), "low": round(mean - half, 5), "high": round(mean + half, 5)}


def measure(sweep: Sweep, config: SweepConfig, n: int) -> None:
    """Evaluate the embedded model at `n` configurations spread over the space; keeps the table."""
    from himap import models, tasks
    from himap.reuse import Reuse
    from himap.search.sampler import stratified
    from himap.together import Request, evaluate_together

    space, rng = sweep.space, random.Random(0)
    drawn = stratified(space, n // 2, sweep.cost, 0) + [space.draw(rng) for _ in range(n - n // 2)]
    chosen = list({space.key(space.strategy(params)): params for params in drawn}.values())
    chosen.sort(key=lambda params: (params["K1"], params["R1"]))
    model, task, reuse = models.load(config.model, config.hardware), tasks.load(config.task), Reuse(4096)
    rows: list[dict[str, Any]] = []
    shown = bar("configurations")
    shown.begin(len(chosen))
    for first in range(0, len(chosen), MOST):
        part = chosen[first : first + MOST]
        requests = [Request(space.strategy(params), None) for params in part]
        for params, result in zip(
            part, evaluate_together(model, requests, task, batch_size=32, reuse=reuse), strict=True
        ):
            if isinstance(result, Exception):
                raise result
            rows.append({**params, "accuracy": round(result.primary, 3)})
        shown.advance(len(part))
        write_json(TABLE, {"rows": rows, "samples": config.task.limit, "environment": environment("cpu")})
    shown.end()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", default=["ehvi", "tpe"])
    parser.add_argument("--surfaces", nargs="+", help="only these; those of an earlier run are kept")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--measure", type=int, metavar="N", help="evaluate N configurations for the table first"
    )
    arguments = parser.parse_args()
    if arguments.measure:
        config = compose("sweep", SweepConfig, ["task.limit=192"])
        measure(plan(config), config, arguments.measure)
    base, worlds = world()
    path = RESULTS / "group_search.json"
    content: dict[str, Any] = {"seeds": arguments.seeds, "trials": list(MARKS), "surfaces": {}}
    if arguments.surfaces:
        worlds = {name: worlds[name] for name in arguments.surfaces}
        if path.exists():
            content["surfaces"] = json.loads(path.read_text())["surfaces"]
    shown = bar("studies")
    shown.begin(len(worlds) * len(arguments.samplers) * len(GROUPS) * arguments.seeds)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for name, accuracy in worlds.items():
            best = [Point(100 * accuracy(p), base.cost(base.space.strategy(p))) for p in base.space.grid()]
            content["surfaces"][name] = {"best_hypervolume": round(hypervolume(best), 5)}
            for sampler in arguments.samplers:
                cases = [(name, sampler, group, seed) for group in GROUPS for seed in range(arguments.seeds)]
                found: dict[int | str, list[list[float]]] = {group: [] for group in GROUPS}
                for (_, _, group, _), numbers in zip(cases, pool.map(one_study, cases), strict=True):
                    found[group].append(numbers)
                    shown.advance(1, f"{name} {sampler} {group}: {numbers[0]:.4f}")
                content["surfaces"][name][sampler] = {
                    str(group): {
                        **{key: summary([one[i] for one in found[group]]) for i, key in enumerate(NUMBERS)},
                        **{
                            f"{key}_minus_trial_by_trial": summary(
                                [a[i] - b[i] for a, b in zip(found[group], found[1], strict=True)]
                            )
                            for i, key in enumerate(NUMBERS[:2])
                        },
                    }
                    for group in GROUPS
                }
                content["environment"] = environment("cpu")
                write_json(path, content)
    shown.end()
    show(content)


@functools.cache
def world() -> tuple[Sweep, dict[str, Accuracy]]:
    """The sweep and its surfaces, once a process."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    base = plan(compose("sweep", SweepConfig, ["task.limit=192"]))
    return base, surfaces(base)


def one_study(case: tuple[str, str, int | str, int]) -> list[float]:
    """The numbers of a study on a surface, with a sampler, a size of group and a seed; see `NUMBERS`."""
    name, sampler, group, seed = case
    base, worlds = world()
    config = replace(base.config, sampler=sampler, seed=seed, group=group, trials=max(MARKS), starts=[])
    sweep = replace(base, config=config)
    points, passes = study(sweep, group, worlds[name])
    return [*(hypervolume(points[:mark]) for mark in MARKS), *savings(sweep, passes)]


def savings(sweep: Sweep, passes: list[list[Strategy]]) -> list[float]:
    """How often cheaper the passes are than separate evaluations; the same for the first 64 in one pass."""
    everything = [strategy for one in passes for strategy in one]
    units, first = sweep.units, everything[: MARKS[0]]
    return [
        units.apart(everything) / sum(units.together(one) for one in passes),
        units.apart(first) / units.together(first),
    ]


def show(content: dict[str, Any]) -> None:
    for name, surface in content["surfaces"].items():
        print(f"{name}: the whole raster has {surface['best_hypervolume']:.4f}")
        for sampler, groups in surface.items():
            if sampler == "best_hypervolume":
                continue
            for group, values in groups.items():
                print(f"  {sampler}, groups of {group}:")
                for key, value in values.items():
                    print(f"    {key}: {value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]")


if __name__ == "__main__":
    main()
