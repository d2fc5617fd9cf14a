"""From the answers of a run to its Result: scores, interval, cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from himap.answers import Answers
from himap.cost import cost
from himap.errors import UserError
from himap.files import write_atomic
from himap.flops import DecoderShape
from himap.metrics.statistics import bootstrap_mean
from himap.result import Result, digest, environment
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Sample, Score, Task


def conclude(
    model: Model,
    strategy: Strategy,
    task: Task,
    samples: Sequence[Sample],
    answers: Answers,
    identity: Mapping[str, Any],
    samples_per_second: float | None,
) -> Result:
    """Score the answers, write the scores beside them and sum the run up.

    Args:
        model: that answered.
        strategy: that it was pruned with.
        task: the samples' own.
        samples: all of the task; each has its row in `answers`.
        answers: of the run.
        identity: the settings that change the numbers.
        samples_per_second: of this run alone; None where it shared its time or asked nothing.

    Raises:
        UserError: every sample failed.
    """
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
    if answers.path is not None:
        for name, text in task.files(good, predictions).items():
            write_atomic(answers.path.with_name(name), text)
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
        samples_per_second=samples_per_second,
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
