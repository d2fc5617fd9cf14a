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
from himap.batches import Failures, in_batches
from himap.cost import cost
from himap.errors import HimapError, UserError
from himap.files import write_atomic
from himap.flops import DecoderShape
from himap.metrics.statistics import bootstrap_mean
from himap.progress import Bar, Quiet
from himap.result import Result, digest, environment
from himap.reuse import Inputs, Reuse
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Sample, Score, Task


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
        identity = {"model": model.name, "pruning": asdict(strategy), "task": task.name, "split": task.split}
    samples = task.samples()
    _check_ids(task, samples)
    answers = Answers(answers_path, identity, resume=resume)
    pending = [sample for sample in samples if sample.id not in answers.rows]
    n_before = len(samples) - len(pending)

    failures = Failures(task.name, fail_on_bad_sample, bar)
    bar.begin(len(samples), n_before)
    started = time.perf_counter()
    try:
        for rows in _answer_all(model, strategy, task, pending, batch_size, bar, reuse or Reuse(0)):
            answers.add(rows)
            failures.report(rows)
            bar.advance(len(rows))
        seconds = time.perf_counter() - started
    finally:
        bar.end()

    good = [sample for sample in samples if answers.rows[sample.id]["error"] is None]
    bad = [sample.id for sample in samples if answers.rows[sample.id]["error"] is not None]
    if not good:
        reason = answers.rows[bad[0]]["error"] if bad else "the task has no sample"
        raise UserError(f"task={task.name}: no sample was answered; the first reason: {reason}")
    predictions = [answers.rows[sample.id]["prediction"] for sample in good]
    score = task.score(good, predictions)
    answers.finish(
        [sample.id for sample in samples],
        {s.id: None if one is None else float(one) for s, one in zip(good, score.per_sample, strict=True)},
    )
    if answers_path is not None:
        for name, text in task.files(good, predictions).items():
            write_atomic(answers_path.with_name(name), text)
    flops, kept = cost(
        DecoderShape.from_config(model.hf.config),
        strategy,
        Counter(tuple(answers.rows[sample.id]["tokens"]) for sample in good),
    )
    return Result(
        model=model.name,
        pruning=strategy.name,
        task=task.name,
        split=task.split,
        n_samples=len(good),
        n_failed=len(bad),
        metrics={**score.metrics, "primary": score.primary},
        ci95=interval(score),
        kept=kept,
        flops=flops,
        samples_per_second=len(pending) / seconds if pending else None,
        environment=environment(str(model.device)),
        config_sha256=digest(identity),
        failed=bad,
        notes=list(score.notes),
    )


def interval(score: Score) -> list[float] | None:
    """95 % interval of a score's headline number; None where no sample was judged."""
    if score.interval is not None:
        return list(score.interval)
    judged = [float(one) for one in score.per_sample if one is not None]
    if not judged:
        return None
    found = bootstrap_mean(judged)
    return [found.low * score.scale, found.high * score.scale]


def _check_ids(task: Task, samples: Sequence[Sample]) -> None:
    twice = [name for name, n in Counter(sample.id for sample in samples).items() if n > 1]
    if twice:
        raise HimapError(f"task={task.name}: the sample id {twice[0]!r} occurs more than once.")


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

    def failed(sample: Sample, error: str) -> Row:
        return _failed_row(sample, model, error)

    with Pruner(model.hf, strategy, image_token_ids=model.image_token_ids), reuse.attached(model.hf):
        yield from in_batches(pending, batch_size, partial(answer, model, task, reuse=reuse), failed, bar)


def answer(model: Model, task: Task, batch: Sequence[Sample], reuse: Reuse | None = None) -> list[Row]:
    """Ask a batch of samples, as the model is now (pruned or not), and parse the answers."""
    from himap.layout import Layout

    def encode() -> Inputs:
        prompts = [task.prompt(sample, model.family) for sample in batch]
        return prompts, model.encode(prompts)

    reuse = reuse or Reuse(0)
    prompts, encoded = reuse.inputs((task.name, task.split, *(sample.id for sample in batch)), encode)
    if prompts[0].options:
        texts = [text.strip() for text in model.rank(encoded, prompts)]
    else:
        texts = model.generate(encoded, task.generation_for(model.family), prompts[0].form)
    layout = Layout.from_ids(encoded["input_ids"], model.image_token_ids, encoded.get("attention_mask"))
    return [
        {
            **asked(sample, model.name),
            "prompt": prompt.text,
            "prediction": task.parse(text, sample),
            "text": text,
            "tokens": list(counts),
            "score": None,
            "error": None,
        }
        for sample, prompt, text, counts in zip(batch, prompts, texts, layout.counts, strict=True)
    ]


def _failed_row(sample: Sample, model: Model, error: str) -> Row:
    return {
        **asked(sample, model.name),
        "prompt": None,
        "prediction": None,
        "text": None,
        "tokens": None,
        "score": None,
        "error": error,
    }


def asked(sample: Sample, model: str) -> Row:
    """What is known before the model answers; with the keys that LLaVA's and the benchmarks' scripts read."""
    return {
        "id": sample.id,
        "question_id": sample.own_id,
        "answer_id": sample.id,
        "model_id": model,
        "metadata": {},
        "category": sample.category,
        "group": sample.group,
        "question": sample.question,
        "reference": sample.answer or list(sample.references),
    }
