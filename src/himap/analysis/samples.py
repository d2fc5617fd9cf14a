"""Measures every sample of a task once, and goes on after an interruption with what lies there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from himap.answers import Answers, Row
from himap.batches import Failures, in_batches
from himap.errors import UserError
from himap.progress import Bar
from himap.tasks.base import Sample, Task


def measure(
    task: Task,
    ask: Callable[[Sequence[Sample]], list[dict[str, Any]]],
    *,
    path: Path,
    identity: Mapping[str, Any],
    batch_size: int,
    fail_on_bad_sample: bool,
    bar: Bar,
) -> tuple[list[Row], list[str]]:
    """Run a measurement over a task.

    Args:
        task: its samples.
        ask: what is measured on each sample of a batch.
        path: of the JSON-lines file; rows that lie there are not measured again.
        identity: the settings that change the measurement; a file of others is refused.
        batch_size: prompts at once.
        fail_on_bad_sample: end at the first sample that fails.
        bar: told about the progress.

    Returns:
        the rows in the samples' order, and the ids of the samples that failed.

    Raises:
        UserError: the rows belong to other settings, or every sample failed.
    """

    def rows_of(batch: Sequence[Sample]) -> list[Row]:
        return [
            {"id": sample.id, "error": None, **found} for sample, found in zip(batch, ask(batch), strict=True)
        ]

    def failed(sample: Sample, error: str) -> Row:
        return {"id": sample.id, "error": error}

    samples = task.samples()
    store = Answers(path, identity)
    pending = [sample for sample in samples if sample.id not in store.rows]
    failures = Failures(task.name, fail_on_bad_sample, bar)
    bar.begin(len(samples), len(samples) - len(pending))
    try:
        for rows in in_batches(pending, batch_size, rows_of, failed, bar):
            store.add(rows)
            failures.report(rows)
            bar.advance(len(rows))
    finally:
        bar.end()
    good = [store.rows[sample.id] for sample in samples if store.rows[sample.id]["error"] is None]
    bad = [sample.id for sample in samples if store.rows[sample.id]["error"] is not None]
    if not good:
        reason = store.rows[bad[0]]["error"] if bad else "the task has no sample"
        raise UserError(f"task={task.name}: no sample could be measured; the first reason: {reason}")
    return good, bad
