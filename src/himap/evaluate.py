"""Model x strategy x task -> Result. Knows no tracker and no search."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.answers import Answers, Row
from himap.asking import answer_each, answered, can_fork, encoded, failed, layout_of, open_branches
from himap.batches import Failures, in_batches
from himap.conclude import conclude
from himap.errors import UserError
from himap.progress import Bar, Quiet
from himap.result import Result
from himap.reuse import Reuse
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Sample, Task


def evaluate(
    model: Model,
    strategy: Strategy,
    task: Task,
    *,
    batch_size: int,
    answers_path: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    resume: bool = True,
    fail_on_bad_sample: bool = False,
    bar: Bar | None = None,
    reuse: Reuse | None = None,
) -> Result:
    """Ask a pruned model every sample of a task and score the answers.

    Args:
        model: loaded, in eval mode.
        strategy: what to prune; `Strategy("none")` for the plain model.
        task: its samples, prompts, parser and score.
        batch_size: prompts at once; halved, and said so, where memory does not suffice.
        answers_path: of answers.jsonl; None writes nothing.
        identity: the settings that change the numbers; answers made with others are refused. By default the
            names of model and task and the strategy's stages.
        resume: go on with the answers at `answers_path`.
        fail_on_bad_sample: end at the first sample that fails, instead of counting it.
        bar: told about the progress.
        reuse: encoded prompts and image features of earlier evaluations of this model on this task.

    Raises:
        UserError: the answers belong to other settings, or every sample failed.
    """
    bar = bar or Quiet()
    strategy.check_depth(model.text_config.num_hidden_layers)
    if identity is None:
        identity = identity_of(model, strategy, task)
    samples = task.samples()
    check_ids(task, samples)
    answers = Answers(answers_path, identity, resume=resume)
    rate = ask(
        model,
        strategy,
        task,
        samples,
        answers,
        batch_size=batch_size,
        fail_on_bad_sample=fail_on_bad_sample,
        bar=bar,
        reuse=reuse or Reuse(0),
    )
    return conclude(model, strategy, task, samples, answers, identity, samples_per_second=rate)


def ask(
    model: Model,
    strategy: Strategy,
    task: Task,
    samples: Sequence[Sample],
    answers: Answers,
    *,
    batch_size: int,
    fail_on_bad_sample: bool,
    bar: Bar,
    reuse: Reuse,
) -> float | None:
    """Answer those of the samples that have no answer yet; the other arguments are as for `evaluate`.

    Returns:
        samples per second; None where all were answered already.

    Raises:
        UserError: a sample failed, with `fail_on_bad_sample`.
    """
    pending = [sample for sample in samples if sample.id not in answers.rows]
    failures = Failures(task.name, fail_on_bad_sample, bar)
    bar.begin(len(samples), len(samples) - len(pending))
    started = time.perf_counter()
    try:
        for rows in _answer_all(model, strategy, task, pending, batch_size, bar, reuse):
            answers.add(rows)
            failures.report(rows)
            bar.advance(len(rows))
    finally:
        bar.end()
    return len(pending) / (time.perf_counter() - started) if pending else None


def identity_of(model: Model, strategy: Strategy, task: Task) -> dict[str, Any]:
    """What tells runs apart where no configuration does."""
    return {"model": model.name, "pruning": asdict(strategy), "task": task.name, "split": task.split}


def check_ids(task: Task, samples: Sequence[Sample]) -> None:
    """Refuse a task that gives two samples one id, for their answers would be mixed up.

    Raises:
        UserError: it does.
    """
    twice = [name for name, n in Counter(sample.id for sample in samples).items() if n > 1]
    if twice:
        raise UserError(
            f"task={task.name}: the sample id {twice[0]!r} occurs more than once (give each its own)."
        )


def _answer_all(
    model: Model,
    strategy: Strategy,
    task: Task,
    pending: Sequence[Sample],
    batch_size: int,
    bar: Bar,
    reuse: Reuse,
) -> Iterator[list[Row]]:
    from himap.pruning import Pruner

    def fail(sample: Sample, error: str) -> Row:
        return failed(sample, model.name, error)

    def at_once(batch: Sequence[Sample]) -> list[Row]:
        (rows,) = answer_each(model, task, batch, branches, reuse)
        return rows

    with reuse.attached(model.hf):
        if can_fork(model, task):
            # A walk through one strategy alone: questions about one picture share its tokens there.
            with open_branches(model, [strategy]) as branches:
                yield from in_batches(pending, batch_size, at_once, fail, bar)
        else:
            with Pruner(model.hf, strategy, image_token_ids=model.image_token_ids):
                one_way = partial(answer, model, task, reuse=reuse)
                yield from in_batches(pending, batch_size, one_way, fail, bar)


def answer(model: Model, task: Task, batch: Sequence[Sample], reuse: Reuse | None = None) -> list[Row]:
    """Ask a batch of samples, as the model is now (pruned or not), and parse the answers."""
    prompts, inputs = encoded(model, task, batch, reuse or Reuse(0))
    if prompts[0].options:
        texts = [text.strip() for text in model.rank(inputs, prompts)]
    else:
        texts = model.generate(inputs, task.generation_for(model.family), prompts[0].form)
    return answered(model, task, batch, prompts, texts, layout_of(model, inputs))
