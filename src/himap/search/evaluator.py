"""What a search asks of whoever evaluates strategies, and the evaluation that happens at most once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from himap.files import write_json
from himap.search.owner import locked
from himap.strategy import Strategy

Reply = dict[str, Any] | Exception
"""The content of a result.json, or why there is none."""


@dataclass(frozen=True)
class Job:
    """A strategy to evaluate.

    Attributes:
        strategy: what to evaluate.
        folder: takes what grows meanwhile (answers.jsonl), so that an interrupted evaluation goes on.
    """

    strategy: Strategy
    folder: Path


class Evaluator(Protocol):
    """Evaluates a group of strategies on a split, together where that is cheaper than one by one."""

    def __call__(self, jobs: Sequence[Job], split: str, advance: Callable[[float], None]) -> list[Reply]:
        """Reply to each job, in order; `advance` hears the share of the group's work done, 0 to 1.

        An exception that is raised instead of returned fails every job; KeyboardInterrupt passes through.
        """


def ask(
    evaluate: Evaluator, jobs: Sequence[Job], split: str, advance: Callable[[float], None]
) -> list[Reply]:
    """What the evaluator replies to each job; what it raises becomes the reply to all of them."""
    try:
        return evaluate(jobs, split, advance)
    # Whatever a configuration does to a model must not end the sweep: it is written down, and the sweep stops
    # by itself when failures are the rule.
    except Exception as error:
        return [error] * len(jobs)


def evaluate_once(evaluate: Evaluator, job: Job, split: str) -> None:
    """Evaluate a strategy into its folder's result.json, unless it lies there already."""
    with locked(job.folder):
        path = job.folder / "result.json"
        if path.exists():
            return
        (reply,) = evaluate([job], split, lambda share: None)
        if isinstance(reply, Exception):
            raise reply
        write_json(path, reply)
