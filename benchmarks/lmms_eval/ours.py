"""himap's side: what `himap score` says of recorded answers, and the prompts that it would have sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from himap import tasks
from himap.commands import score as command
from himap.config.compose import compose
from himap.errors import UserError
from himap.files import append_jsonl, read_jsonl

FAMILY = "llava"  # lmms-eval's default prompts are LLaVA's
QWEN = "qwen_vl_chat"


@dataclass(frozen=True)
class Scored:
    """Metrics, each answered document's score, every document's prompts, and the generation settings."""

    metrics: dict[str, Any]
    scores: list[float]
    prompts: list[str]
    qwen_prompts: list[str]
    generation: dict[str, Any]


def quoted(path: Path) -> str:
    """A path as an override's value, whatever its characters."""
    escaped = str(path).replace("'", "\\'")
    return f"'{escaped}'"


def score(overrides: Sequence[str], answers: Sequence[str | None], folder: Path, log: Path | None) -> Scored:
    """Score answers given as an answers.jsonl and, where there is one, as lmms-eval's log.

    Args:
        overrides: of `himap score`, all but the answers.
        answers: one a document in the data's order, None for none.
        folder: of the results.
        log: lmms-eval's samples with the same answers.

    Raises:
        UserError: the two files score differently.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / "given.jsonl"
    config = compose("score", command.ScoreConfig, [*overrides, f"answers={quoted(own)}"])
    task = tasks.load(config.task)
    samples = task.samples()
    rows = zip(samples, answers, strict=True)
    append_jsonl(own, ({"id": sample.id, "prediction": "", "text": text} for sample, text in rows))
    result = command.score(config, own, folder)
    if log is not None:
        other = command.score(config, log, folder / "log")
        if other.metrics != result.metrics:
            raise UserError(f"{log}: scores {other.metrics}, but the same answers in {own} {result.metrics}.")
    return Scored(
        metrics=result.metrics,
        scores=[row["score"] for row in read_jsonl(folder / "answers.jsonl")],
        prompts=[task.text(sample, FAMILY) for sample in samples],
        qwen_prompts=[task.text(sample, QWEN) for sample in samples],
        generation=asdict(task.generation_for(FAMILY)),
    )
