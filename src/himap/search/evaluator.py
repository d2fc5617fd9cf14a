"""What a search asks of whoever evaluates strategies, and the evaluation that happens at most once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
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


def evaluate_once(
    evaluate: Evaluator, jobs: Sequence[Job], split: str, advance: Callable[[float], None]
) -> None:
    """Evaluate strategies into their folders' result.json, together; what lies there already stays.

    Raises:
        Exception: the first that came instead of a result; the other results are written.
    """
    with ExitStack() as held:
        # In one order for every worker, so that no two wait for each other.
        for job in sorted(jobs, key=lambda job: job.folder):
            held.enter_context(locked(job.folder))
        missing = [job for job in jobs if not (job.folder / "result.json").exists()]
        replies = evaluate(missing, split, advance) if missing else []
        for job, reply in zip(missing, replies, strict=True):
            if not isinstance(reply, Exception):
                write_json(job.folder / "result.json", reply)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
