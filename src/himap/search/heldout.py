"""The held-out check: front and baselines evaluated once more, on samples that the search never saw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from himap.search.evaluator import Evaluator, Job, evaluate_once
from himap.search.front import spread
from himap.search.outcome import Outcome
from himap.search.space import Space
from himap.strategy import Strategy


def choose(outcome: Outcome, space: Space, baselines: dict[str, Strategy], most: int) -> dict[str, Strategy]:
    """Key -> strategy of what is evaluated again: all baselines, and at most `most` points of the front.

    Points are spread evenly over the front, because the time of the check must not grow with the front.
    """
    chosen = {space.key(strategy): strategy for strategy in baselines.values()}
    front = outcome.front
    for i in spread(len(front), most):
        chosen.setdefault(front[i].key, space.strategy(front[i].params))
    return chosen


def check(
    evaluate: Evaluator,
    chosen: dict[str, Strategy],
    split: str,
    folder: Path,
    most: int,
    on_progress: Callable[[int, float], None],
    on_point: Callable[[str], None],
) -> None:
    """Evaluate the chosen strategies into `folder`/<key>/, at most `most` together; what lies there stays."""
    keys = list(chosen)
    for first in range(0, len(keys), most):
        group = keys[first : first + most]
        jobs = [Job(chosen[key], folder / key) for key in group]
        evaluate_once(evaluate, jobs, split, partial(on_progress, len(jobs)))
        for key in group:
            on_point(key)
