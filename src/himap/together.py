"""Many strategies x one model x one task -> many Results, from one pass over the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.answers import Answers, Row
from himap.asking import answer_each, can_fork, failed, open_branches
from himap.batches import Failures, in_batches
from himap.conclude import conclude
from himap.evaluate import check_ids, evaluate, identity_of
from himap.progress import Bar, Quiet
from himap.result import Result
from himap.reuse import Reuse
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Sample, Task


@dataclass(frozen=True)
class Request:
    """A strategy to evaluate, and where its answers go.

    Attributes:
        strategy: what to prune.
        answers_path: of answers.jsonl; None writes nothing.
        identity: the settings that change the numbers, as for `evaluate`.
    """

    strategy: Strategy
    answers_path: Path | None = None
    identity: Mapping[str, Any] | None = None


def evaluate_together(
    model: Model,
    requests: Sequence[Request],
    task: Task,
    *,
    batch_size: int,
    fail_on_bad_sample: bool = False,
    bar: Bar | None = None,
    reuse: Reuse | None = None,
) -> list[Result | Exception]:
    """Evaluate strategies as `evaluate` does, but let them share what they have in common.

    Image features, the layers before the first drop, scores, and all stages with which several strategies
    begin are computed once for a batch of samples. Predictions are those of separate evaluations. Where a
    task's decoding cannot fork (beams, a checkpoint's own rules), strategies are evaluated one by one.

    Args:
        model: loaded, in eval mode.
        requests: what to evaluate.
        task: its samples, prompts, parser and score.
        batch_size: prompts at once; halved, and said so, where memory does not suffice.
        fail_on_bad_sample: end at the first sample that fails, instead of counting it.
        bar: told about the progress, in samples (of all requests, where they go one by one).
        reuse: encoded prompts and image features of earlier evaluations of this model on this task.

    Returns:
        for each request its result, or why there is none (answers of other settings, no sample answered).
        Their `samples_per_second` is None: the time was shared.

    Raises:
        UserError: a sample failed, with `fail_on_bad_sample`.
    """
    bar, reuse = bar or Quiet(), reuse or Reuse(0)
    if len(requests) < 2 or not can_fork(model, task):
        return _one_by_one(model, requests, task, batch_size, fail_on_bad_sample, bar, reuse)
    samples = task.samples()
    check_ids(task, samples)
    runs: list[_Run | Exception] = [_begin(model, request, task) for request in requests]
    alive = [run for run in runs if isinstance(run, _Run)]
    # A sample that some runs have answered before an interruption is asked again for the others.
    pending = [sample for sample in samples if any(sample.id not in run.answers.rows for run in alive)]
    failures = Failures(task.name, fail_on_bad_sample, bar)
    bar.begin(len(samples), len(samples) - len(pending))
    try:
        if pending:
            strategies = [run.request.strategy for run in alive]
            with (
                open_branches(model, strategies) as branches,
                reuse.attached(model.hf),
            ):

                def ask(batch: Sequence[Sample]) -> list[list[Row]]:
                    rows = answer_each(model, task, batch, branches, reuse)
                    return [list(column) for column in zip(*rows, strict=True)]

                def fail(sample: Sample, error: str) -> list[Row]:
                    return [failed(sample, model.name, error) for _ in strategies]

                for columns in in_batches(pending, batch_size, ask, fail, bar):
                    for run, rows in zip(alive, zip(*columns, strict=True), strict=True):
                        run.answers.add([row for row in rows if row["id"] not in run.answers.rows])
                    # A sample fails for all strategies, and is reported once.
                    failures.report([column[0] for column in columns])
                    bar.advance(len(columns))
    finally:
        bar.end()
    return [_end(model, run, task, samples) for run in runs]


@dataclass(frozen=True)
class _Run:
    request: Request
    identity: Mapping[str, Any]
    answers: Answers


def _begin(model: Model, request: Request, task: Task) -> _Run | Exception:
    strategy = request.strategy
    identity = request.identity or identity_of(model, strategy, task)
    try:
        strategy.check_depth(model.text_config.num_hidden_layers)
        return _Run(request, identity, Answers(request.answers_path, identity))
    except Exception as error:
        return error


def _end(model: Model, run: _Run | Exception, task: Task, samples: Sequence[Sample]) -> Result | Exception:
    if isinstance(run, Exception):
        return run
    try:
        return conclude(model, run.request.strategy, task, samples, run.answers, run.identity, None)
    except Exception as error:
        return error


def _one_by_one(
    model: Model,
    requests: Sequence[Request],
    task: Task,
    batch_size: int,
    fail_on_bad_sample: bool,
    bar: Bar,
    reuse: Reuse,
) -> list[Result | Exception]:
    results: list[Result | Exception] = []
    bar.begin(len(task.samples()) * len(requests))
    for request in requests:
        try:
            results.append(
                evaluate(
                    model,
                    request.strategy,
                    task,
                    batch_size=batch_size,
                    answers_path=request.answers_path,
                    identity=request.identity,
                    fail_on_bad_sample=fail_on_bad_sample,
                    bar=_Part(bar),
                    reuse=reuse,
                )
            )
        except Exception as error:
            results.append(error)
    bar.end()
    return results


class _Part:
    """Tells a bar of many evaluations about one of them."""

    def __init__(self, whole: Bar) -> None:
        self._whole = whole

    def begin(self, total: int, done: int = 0) -> None:
        self._whole.advance(done)

    def advance(self, n: int = 1, note: str = "") -> None:
        self._whole.advance(n, note)

    def say(self, text: str) -> None:
        self._whole.say(text)

    def end(self) -> None:
        pass
