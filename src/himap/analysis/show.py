"""Prepares chosen samples for drawing: their images, survivors, and answers with and without pruning."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.analysis.labels import reference
from himap.errors import UserError
from himap.evaluate import answer
from himap.files import write_bytes_atomic, write_json
from himap.pruning import Pruner
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Task


def show(
    model: Model,
    task: Task,
    strategy: Strategy,
    rows: Sequence[dict[str, Any]],
    ids: Sequence[str],
    folder: Path,
) -> None:
    """Write shown.json and the samples' images into `folder`.

    Args:
        strategy: the one whose survivors stand first in each row.
        rows: what `kept_of` measured.
        ids: the samples.

    Raises:
        UserError: the task has no such sample, or it failed.
    """
    samples = {sample.id: sample for sample in task.samples()}
    measured = {row["id"]: row for row in rows}
    found = []
    for name in ids:
        if name not in measured:
            raise UserError(f"analysis.ids={name}: was not measured (choose one of task={task.name}).")
        sample, row = samples[name], measured[name]
        plain = answer(model, task, [sample])[0]["prediction"]
        with Pruner(model.hf, strategy, image_token_ids=model.image_token_ids):
            pruned = answer(model, task, [sample])[0]["prediction"]
        files = []
        for number, image in enumerate(task.prompt(sample, model.family).images):
            files.append(f"shown/{re.sub(r'[^A-Za-z0-9-]+', '_', name)}-{number}.png")
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            write_bytes_atomic(folder / files[-1], buffer.getvalue())
        found.append(
            {
                "id": name,
                "question": sample.question,
                "choices": list(sample.choices),
                "reference": reference(sample),
                "plain": plain,
                "pruned": pruned,
                "images": files,
                "grids": row["grids"],
                "stages": [
                    {"name": stage.name, "layer": stage.layer, "criterion": stage.criterion, "kept": kept}
                    for stage, kept in zip(strategy.stages, row["kept"][0], strict=True)
                ],
            }
        )
    write_json(folder / "shown.json", {"strategy": strategy.name, "samples": found})
