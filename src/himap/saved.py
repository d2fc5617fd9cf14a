"""Saved answers in the forms that people have: ours, LLaVA's, lmms-eval's; and whose they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from himap.answers import Row
from himap.errors import UserError
from himap.tasks.benchmark import SHORT

if TYPE_CHECKING:
    from himap.tasks.base import Sample, Task

_KEYS = {"himap": ("id", "text"), "llava": ("question_id", "text"), "lmms_eval": ("doc_id",)}
"""Form -> what each of its lines must have."""


class Saved(NamedTuple):
    """What a model wrote to a sample, and the prompt that it was asked, where the file has it."""

    text: str
    prompt: str | None


def read(path: Path) -> tuple[list[Row], str]:
    """The rows of a JSON-lines file and its format.

    Raises:
        UserError: the file is missing, empty, no JSON lines, or of no known form.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"answers={path}: cannot be read ({error}).") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise UserError(
                    f"answers={path}: line {number} is no JSON object ({error}; mend it or take it out)."
                ) from error
            if not isinstance(rows[-1], dict):
                raise UserError(f"answers={path}: line {number} is no JSON object (one a line is needed).")
    if not rows:
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


def answers(rows: Sequence[Row], form: str, task: Task, path: Path) -> dict[str, Saved]:
    """What the model wrote for each sample, by the sample's id; answers that failed are left out.

    Raises:
        UserError: a line lacks what its form needs, an answer belongs to no sample or to several, or a sample
            has two.
    """
    find = {"himap": _by_id, "llava": _by_question, "lmms_eval": _by_number}[form](task.samples(), task)
    found: dict[str, Saved] = {}
    for number, row in enumerate(rows, 1):
        if lacking := _lacking(row, form):
            raise UserError(f"answers={path}: line {number} has no {lacking}, which format={form} needs.")
        fitting = find(row)
        if isinstance(fitting, str):
            raise UserError(f"answers={path}: line {number} {fitting}.")
        text = _text(row, form)
        if text is None:
            continue
        # Questions that a benchmark asks twice in the same words are answered in their order.
        sample = next((one for one in fitting if one.id not in found), None)
        if sample is None:
            raise UserError(f"answers={path}: line {number} is a second answer to sample {fitting[0].id}.")
        prompt = row.get("input" if form == "lmms_eval" else "prompt")
        found[sample.id] = Saved(text, prompt if isinstance(prompt, str) else None)
    return found


def _lacking(row: Row, form: str) -> str:
    """The key that a row should have and has not; empty where it has all."""
    missing = [key for key in _KEYS[form] if key not in row]
    if form == "lmms_eval" and not {"filtered_resps", "resps"} & row.keys():
        missing.append("filtered_resps")
    return missing[0] if missing else ""


def _text(row: Row, form: str) -> str | None:
    text: Any = row.get("filtered_resps", row.get("resps")) if form == "lmms_eval" else row["text"]
    while isinstance(text, list):
        text = text[0] if text else None
    return None if text is None else str(text)


Find = Callable[[Row], "Sequence[Sample] | str"]
"""Row -> the samples that it may answer, or what is wrong with it."""


def _by_id(samples: Sequence[Sample], task: Task) -> Find:
    known = {sample.id: [sample] for sample in samples}
    return lambda row: known.get(row["id"]) or f"answers {row['id']!r}, which is no sample of {_where(task)}"


def _by_question(samples: Sequence[Sample], task: Task) -> Find:
    """By the benchmark's question id, which must have been asked; where it repeats (MME), by the prompt."""
    known: dict[str, list[Sample]] = {}
    for sample in samples:
        for id in dict.fromkeys(map(str, task.ids(sample))):
            known.setdefault(id, []).append(sample)

    def find(row: Mapping[str, Any]) -> Sequence[Sample] | str:
        id, prompt = row["question_id"], row.get("prompt") or ""
        named = known.get(str(id), [])
        if not named:
            return f"answers {id!r}, which is no sample of {_where(task)}"
        fitting = named
        if prompt:
            equal = [sample for sample in named if _plain(task.text(sample, "llava")) == _plain(prompt)]
            if equal:
                return equal
            # Asked in other words than ours: the question must be in there.
            fitting = [sample for sample in named if not sample.question or _asks(prompt, sample, task)]
        if not fitting:
            return f"answers {prompt!r}, but {id!r} of {_where(task)} asks {named[0].question!r}"
        if len(fitting) > 1:
            return f"answers {id!r}, which fits several samples of {_where(task)}"
        return fitting

    return find


def _by_number(samples: Sequence[Sample], task: Task) -> Find:
    """By the document's number in the hub's split; its question must be the sample's.

    Logs on disk hold no document (lmms-eval 0.7 takes it out), but the prompt that was sent.
    """

    def find(row: Mapping[str, Any]) -> Sequence[Sample] | str:
        number, document = row["doc_id"], row.get("doc") or {}
        if not isinstance(number, int) or not 0 <= number < len(samples):
            return f"answers document {number}, which is none of the {len(samples)} samples of {_where(task)}"
        sample = samples[number]
        question = document.get("question") if isinstance(document, dict) else None
        if question is not None and sample.question and _plain(question) != _plain(sample.question):
            return f"answers {question!r}, but document {number} of {_where(task)} asks {sample.question!r}"
        prompt = row.get("input")
        if question is None and isinstance(prompt, str) and not _asks(prompt, sample, task):
            return f"answers {prompt!r}, but document {number} of {_where(task)} asks {sample.question!r}"
        return [sample]

    return find


def _asks(prompt: str, sample: Sample, task: Task) -> bool:
    """Whether a prompt of any wording holds the sample's question, MME's without its request."""
    bare = task.text(sample, "llava").removesuffix(SHORT)
    return any(_plain(question) in _plain(prompt) for question in (sample.question, bare))


def _plain(text: str) -> str:
    return " ".join(str(text).split()).lower()


def _where(task: Task) -> str:
    limit = getattr(task, "limit", None)
    return f"task={task.name} task.split={task.split}" + (f" task.limit={limit}" if limit else "")
