"""answers.jsonl: one line a sample, appended as batches finish, and picked up again after an interruption."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from himap.errors import UserError
from himap.files import append_jsonl, read_jsonl, repair_jsonl, write_atomic, write_json

log = logging.getLogger(__name__)

Row = dict[str, Any]


class Answers:
    """The answers of one run, in memory and (with a path) on disk.

    A row has `id`, `question`, `prediction`, `reference`, `score` (null until all are there, or without a
    judgement), `prompt`, `text` (what the model wrote), `tokens` ([system, image, instruction]) and `error`
    (null, or why the sample failed; then prediction, score, prompt and text are null). LLaVA's scripts and
    those of the benchmarks read `question_id`, `prompt`, `text`, `answer_id`, `model_id` and `metadata`.
    Beside the file lies what settings made it, so that answers of different settings never mix.

    Args:
        path: of the JSON-lines file; None keeps the answers in memory.
        identity: the settings that change the answers.
        resume: go on with the answers that lie there; otherwise they are thrown away.

    Raises:
        UserError: the file was made with other settings; the message names them.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], *, resume: bool = True) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        if path is None:
            return
        beside = _beside(path)
        if path.exists() and resume:
            _refuse_other(path, beside, identity)
            repair_jsonl(path)
            # A sample that failed is asked again: its reason may be gone.
            self.rows = {row["id"]: row for row in read_jsonl(path) if row["error"] is None}
        else:
            write_json(beside, identity)
            write_atomic(path, "")

    @classmethod
    def joined(cls, path: Path, identity: Mapping[str, Any], rows: Mapping[str, Row]) -> Answers:
        """Answers that were written elsewhere; `finish` brings them into the file at `path`.

        Raises:
            UserError: a file lies there that was made with other settings.
        """
        answers = cls(None, identity)
        answers.path, answers.rows = path, dict(rows)
        beside = _beside(path)
        if path.exists():
            _refuse_other(path, beside, identity)
        else:
            write_json(beside, identity)
        return answers

    def add(self, rows: Sequence[Row]) -> None:
        """Keep rows; on return they are on disk."""
        self.rows.update((row["id"], row) for row in rows)
        if self.path is not None:
            append_jsonl(self.path, rows)

    def finish(self, ids: Sequence[str], scores: Mapping[str, float | None]) -> None:
        """Fill the scores in and bring the file into the samples' order, in one atomic step."""
        for sample, score in scores.items():
            self.rows[sample]["score"] = score
        if self.path is not None:
            lines = (json.dumps(self.rows[sample], ensure_ascii=False, allow_nan=False) for sample in ids)
            write_atomic(self.path, "".join(f"{line}\n" for line in lines))


def read_answers(path: Path, identity: Mapping[str, Any]) -> dict[str, Row]:
    """The rows that a run, perhaps still at work, has written by now; failed samples are among them.

    Raises:
        UserError: the file was made with other settings.
    """
    if not path.exists():
        return {}
    _refuse_other(path, _beside(path), identity)
    return {row["id"]: row for row in read_jsonl(path)}


def holds_run(folder: Path) -> bool:
    """Whether an evaluation wrote its answers into a folder."""
    return _beside(folder / "answers.jsonl").exists()


def _beside(path: Path) -> Path:
    return path.with_suffix(".identity.json")


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """`key: old -> new` for every leaf in which two nested settings differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{key}.{name}" if key else str(name)
            found += differences(old.get(name), new.get(name), inner)
        return found
    return [] if old == new else [f"{key}: {json.dumps(old)} -> {json.dumps(new)}"]


def _refuse_other(path: Path, beside: Path, identity: Mapping[str, Any]) -> None:
    try:
        old = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot tell which settings made it ({error}); choose another folder or remove it."
        ) from error
    # Through JSON, so that tuples and lists compare equal.
    new = json.loads(json.dumps(identity))
    if "weights" in new and "weights" not in old:
        log.warning(
            "%s: was begun before himap recorded the weights; whether they are the same cannot be told.",
            path,
        )
        del new["weights"]
    changed = differences(old, new)
    if changed:
        raise UserError(
            f"{path}: was made with other settings: {'; '.join(changed)} "
            "(undo the change, or choose another hydra.run.dir)."
        )
