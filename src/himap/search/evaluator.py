"""What a search asks of whoever evaluates a strategy, and the evaluation that happens at most once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from himap.files import write_json
from himap.search.owner import locked
from himap.strategy import Strategy


class Evaluator(Protocol):
    """Evaluates a strategy on a split and returns the content of its result.json.

    `folder` takes what grows during the evaluation (answers.jsonl), so that an interrupted one goes on.
    """

    def __call__(self, strategy: Strategy, split: str, folder: Path) -> dict[str, Any]: ...


def evaluate_once(evaluate: Evaluator, strategy: Strategy, split: str, folder: Path) -> None:
    """Evaluate a strategy into `folder`/result.json, unless it lies there already."""
    with locked(folder):
        path = folder / "result.json"
        if not path.exists():
            write_json(path, evaluate(strategy, split, folder))
