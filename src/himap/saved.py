"""Saved answers in the forms that people have: ours, LLaVA's, lmms-eval's; and whose they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.answers import Row
from himap.errors import UserError
from himap.tasks.benchmark import SHORT

if TYPE_CHECKING:
    from himap.tasks.base import Sample, Task

FORMATS = ("himap", "llava", "lmms_eval")


def read(path: Path) -> tuple[list[Row], str]:
    """The rows of a JSON-lines file and its format.

    Raises:
        UserError: the file is missing, empty, no JSON lines, or of no known form.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"answers={path}: cannot be read ({error}).") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"answers={path}: line {number} is no JSON object ({error}).") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"answers={path}: holds no answers (one JSON object a line).")
    return rows, _format(path, rows[0])


def _format(path: Path, row: Row) -> str:
    if {"id", "text", "prediction"} <= row.keys():
        return "himap"
    if {"question_id", "text"} <= row.keys():
        return "llava"
    if "doc_id" in row and ("filtered_resps" in row or "resps" in row):
        return "lmms_eval"
    raise UserError(
        f"answers={path}: has the keys {', '.join(row)}; known are himap's (id, prediction, text), "
        "LLaVA's (question_id, text) and lmms-eval's samples (doc_id, filtered_resps)."
    )


def texts(rows: Sequence[Row], form: str, task: Task, path: Path) -> dict[str, str]:
    """What the model wrote for each sample, by the sample's id; answers that failed are left out.

    Raises:
        UserError: an answer belongs to no sample, to several, or a sample has two.
    """
    samples = task.samples()
    find = {"himap": _by_id, "llava": _by_question, "lmms_eval": _by_number}[form](samples, task)
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        sample = find(row)
        if isinstance(sample, str):
            raise UserError(f"answers={path}: line {number} {sample}.")
        text = _text(row, form)
        if text is None:
            continue
        if sample.id in found:
            raise UserError(f"answers={path}: line {number} is a second answer to sample {sample.id}.")
        found[sample.id] = text
    return found


def _text(row: Row, form: str) -> str | None:
    if form != "lmms_eval":
        return None if row["text"] is None else str(row["text"])
    text: Any = row.get("filtered_resps", row.get("resps"))
    while isinstance(text, list) and text:
        text = text[0]
    return str(text)


def _by_id(samples: Sequence[Sample], task: Task) -> Any:
    known = {sample.id: sample for sample in samples}
    return lambda row: known.get(row["id"]) or f"answers {row['id']!r}, which is no sample of {_where(task)}"


def _by_question(samples: Sequence[Sample], task: Task) -> Any:
    """By the benchmark's question id; where it repeats (MME, TextVQA), by the prompt as well."""
    known: dict[str, list[Sample]] = {}
    for sample in samples:
        known.setdefault(str(sample.own_id), []).append(sample)

    def find(row: Mapping[str, Any]) -> Sample | str:
        named = known.get(str(row["question_id"]), [])
        if len(named) > 1:
            asked = _plain(row.get("prompt", ""))
            named = [sample for sample in named if _plain(task.text(sample, "llava")) == asked]
        if len(named) == 1:
            return named[0]
        problem = "which fits several samples" if named else "which is no sample"
        return f"answers {row['question_id']!r}, {problem} of {_where(task)}"

    return find


def _by_number(samples: Sequence[Sample], task: Task) -> Any:
    """By the document's number in the hub's split; its question must be the sample's.

    Logs on disk hold no document (lmms-eval 0.7 takes it out), but the prompt that was sent.
    """

    def find(row: Mapping[str, Any]) -> Sample | str:
        number, document = row["doc_id"], row.get("doc") or {}
        if not 0 <= number < len(samples):
            return f"answers document {number}, which is none of the {len(samples)} samples of {_where(task)}"
        sample = samples[number]
        question = document.get("question") if isinstance(document, dict) else None
        if question is not None and sample.question and _plain(question) != _plain(sample.question):
            return f"answers {question!r}, but document {number} of {_where(task)} asks {sample.question!r}"
        prompt = row.get("input")
        if question is None and isinstance(prompt, str) and not _asks(prompt, sample, task):
            return f"answers {prompt!r}, but document {number} of {_where(task)} asks {sample.question!r}"
        return sample

    return find


def _asks(prompt: str, sample: Sample, task: Task) -> bool:
    """Whether a prompt of any wording holds the sample's question, MME's without its request."""
    bare = task.text(sample, "llava").removesuffix(SHORT)
    return any(_plain(question) in _plain(prompt) for question in (sample.question, bare))


def _plain(text: str) -> str:
    return " ".join(str(text).split()).lower()


def _where(task: Task) -> str:
    return f"task={task.name} task.split={task.split}"
