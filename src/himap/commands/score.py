"""`himap score`: score saved answers without a model -> result.json and answers.jsonl."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from himap.answers import Row, holds_run
from himap.commands.launch import launch
from himap.config import TaskConfig
from himap.errors import UserError
from himap.files import write_atomic
from himap.result import Result, digest, environment
from himap.rules import one_of

if TYPE_CHECKING:
    from himap.saved import Saved
    from himap.tasks.base import Sample, Score, Task

_FORMATS = ("auto", "himap", "llava", "lmms_eval")


@dataclass
class ScoreConfig:
    """`himap score`: one task, one file of answers.

    Attributes:
        task: whose samples were answered.
        answers: the file.
        format: `himap`, `llava` or `lmms_eval`; `auto` tells by the file's keys.
    """

    task: TaskConfig
    answers: str
    format: str = "auto"

    def __post_init__(self) -> None:
        one_of("format", self.format, _FORMATS)


def main(arguments: Sequence[str]) -> None:
    launch("score", ScoreConfig, run, arguments)


def run(config: ScoreConfig, folder: Path) -> None:
    """Score, write into `folder` and print the result.

    Raises:
        UserError: an evaluation wrote into `folder`; its answers would be lost.
    """
    from himap.commands.evaluate import show

    path = Path(config.answers).expanduser()
    if holds_run(folder):
        raise UserError(
            f"hydra.run.dir={folder}: holds an evaluation, whose answers would be overwritten (give another "
            "folder)."
        )
    result = score(config, path, folder)
    result.save(folder / "result.json")
    show(result, folder)


def score(config: ScoreConfig, path: Path, folder: Path) -> Result:
    """The result of the answers in `path`; the scored answers go into `folder`.

    Raises:
        UserError: an answer fits no sample, none is there, or one is missing under task.on_bad_sample=fail.
    """
    from himap import saved, tasks

    task = tasks.load(config.task)
    rows, form = saved.read(path)
    form = form if config.format == "auto" else config.format
    given = saved.answers(rows, form, task, path)
    samples = task.samples()
    answered = [sample for sample in samples if sample.id in given and not sample.error]
    left_out = [sample for sample in samples if sample.id not in given or sample.error]
    missing = [sample.id for sample in left_out]
    if not answered:
        raise UserError(f"answers={path}: holds no answer to task={task.name} task.split={task.split}.")
    if missing and config.task.on_bad_sample == "fail":
        reason = left_out[0].error or f"answers={path}: no answer to sample {missing[0]}"
        raise UserError(
            f"{reason.rstrip('.')}, one of {len(missing)} (or count them with task.on_bad_sample=skip)."
        )
    predictions = [task.parse(given[sample.id].text, sample) for sample in answered]
    found = task.score(answered, predictions)
    model = str(rows[0].get("model_id") or "unknown")
    _write(folder, answered, predictions, [given[sample.id] for sample in answered], found, model)
    for name, text in task.files(answered, predictions).items():
        write_atomic(folder / name, text)
    return _result(config, path, form, model, task, found, missing, len(answered))


def _write(
    folder: Path,
    samples: Sequence[Sample],
    predictions: Sequence[str],
    given: Sequence[Saved],
    found: Score,
    model: str,
) -> None:
    from himap.asking import asked

    rows: list[Row] = [
        {
            **asked(sample, model),
            "prompt": answer.prompt,
            "prediction": prediction,
            "text": answer.text,
            "score": None if one is None else float(one),
            "error": None,
        }
        for sample, prediction, answer, one in zip(samples, predictions, given, found.per_sample, strict=True)
    ]
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomic(folder / "answers.jsonl", "".join(lines))


def _result(
    config: ScoreConfig,
    path: Path,
    form: str,
    model: str,
    task: Task,
    found: Score,
    missing: list[str],
    n: int,
) -> Result:
    from himap.conclude import interval

    # Our own answers lie beside the result of the run that made them: model, strategy and cost stand there.
    beside = path.with_name("result.json")
    made = Result.load(beside) if form == "himap" and beside.exists() else Result(model, "", {}, [], "", {})
    notes = [*found.notes, f"scored from saved answers ({form})"]
    if missing:
        notes.append(f"{len(missing)} samples have no answer, or no sound record, and are in no metric")
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(
        made,
        task=task.name,
        split=task.split,
        n_samples=n,
        n_failed=len(missing),
        failed=missing,
        metrics={**found.metrics, "primary": found.primary},
        ci95=interval(found),
        samples_per_second=None,
        environment=environment(),
        config_sha256=digest({"task": asdict(config.task), "answers": content}),
        notes=notes,
    )
