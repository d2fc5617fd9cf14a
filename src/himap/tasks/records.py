"""Read the files that benchmarks release, and check what their records hold."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from himap.errors import UserError
from himap.metrics.vqa import N_ANSWERS

Record = dict[str, Any]

BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What a record that is not as expected raises."""


def read_json(path: Path) -> Any:
    """A JSON file; errors carry its name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"task.data.path: {path} is no JSON ({error}).") from error


def read_lines(path: Path) -> list[Record]:
    """A JSON-lines file as the benchmarks release them (a last line without its end is one of theirs)."""
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    lines = path.read_text(encoding="utf-8").split("\n")
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise UserError(f"task.data.path: {path} is not one JSON object a line ({error}).") from error


def ten(answers: Sequence[str]) -> tuple[str, ...]:
    """The answers of ten annotators, on which VQA's soft accuracy rests.

    Raises:
        ValueError: there are more or fewer.
    """
    if len(answers) != N_ANSWERS:
        raise ValueError(f"{len(answers)} answers instead of {N_ANSWERS}")
    return tuple(answers)


def right_letter(index: int, n_choices: int) -> str:
    """The letter of the option `index`, from 0.

    Raises:
        IndexError: there is no such option.
    """
    if not 0 <= index < n_choices:
        raise IndexError(f"option {index} of {n_choices}")
    return string.ascii_uppercase[index]


def yes_or_no(answer: str) -> str:
    """A truth as `yes` or `no`.

    Raises:
        ValueError: it is neither.
    """
    word = answer.strip().lower()
    if word not in ("yes", "no"):
        raise ValueError(f"the answer {answer!r} is neither yes nor no")
    return word
