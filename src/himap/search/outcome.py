"""What a sweep's folder says: trials, front, baselines, held-out results. Reads files only, no Optuna."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himap.errors import UserError
from himap.search.front import Point, pareto
from himap.search.space import Params
from himap.search.trials import Record, TrialStore


@dataclass(frozen=True)
class Measured:
    """A configuration with its result on one split."""

    key: str
    point: Point
    result: dict[str, Any]


@dataclass(frozen=True)
class Evaluated(Measured):
    """A trial that was evaluated."""

    number: int
    params: Params


@dataclass(frozen=True)
class Outcome:
    """Everything that lies in a sweep's folder.

    Attributes:
        folder: the folder.
        study: the content of study.json.
        trials: evaluated trials, by number, without copies.
        failed: record and error of each trial that failed.
        n_copies: trials that proposed a configuration which was known already.
        baselines: name -> result on the search split, where there is one.
        heldout: key -> result on the held-out split.
    """

    folder: Path
    study: dict[str, Any]
    trials: list[Evaluated]
    failed: list[tuple[Record, str]]
    n_copies: int
    baselines: dict[str, Measured]
    heldout: dict[str, Measured]

    @property
    def front(self) -> list[Evaluated]:
        """Trials that no other trial dominates, by growing FLOPs share."""
        return [self.trials[i] for i in pareto([trial.point for trial in self.trials])]


def point_of(result: dict[str, Any], flops: str) -> Point:
    """The two objectives of a result: its headline metric and its FLOPs share (`paper` or `prefill`).

    Raises:
        ValueError: the metric is not a number.
    """
    name = result["metrics"]["primary"]
    accuracy = result["metrics"][name]
    if accuracy is None or not math.isfinite(accuracy):
        raise ValueError(f"the metric {name} is {accuracy}, which cannot be searched")
    return Point(accuracy=accuracy, share=result["flops"][f"{flops}_share"])


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep."""
    return (folder / "study.json").exists()


def read_study(folder: Path) -> dict[str, Any]:
    """The content of study.json.

    Raises:
        UserError: the folder holds no sweep.
    """
    path = folder / "study.json"
    if not path.exists():
        raise UserError(f"{folder}: holds no sweep (study.json is missing).")
    return json.loads(path.read_text(encoding="utf-8"))


def read_outcome(folder: Path) -> Outcome:
    """Read a sweep's folder, finished or not; see `Outcome`."""
    study = read_study(folder)
    flops = study["search"]["flops"]
    store = TrialStore(folder)
    trials: list[Evaluated] = []
    failed: list[tuple[Record, str]] = []
    n_copies = 0
    for record in store.records():
        if record.copy_of is not None:
            n_copies += 1
            continue
        result = store.result(record.number)
        error = store.error(record.number)
        if result is not None:
            point = point_of(result, flops)
            trials.append(Evaluated(record.key, point, result, record.number, record.params))
        elif error is not None:
            failed.append((record, error))

    by_key = {trial.key: trial for trial in trials}
    baselines: dict[str, Measured] = {}
    for name, baseline in study["baselines"].items():
        key = baseline["key"]
        beside = _measured(folder / "baselines" / key, key, flops)
        measured = beside or by_key.get(key)
        if measured is not None:
            baselines[name] = measured
    heldout: dict[str, Measured] = {}
    for path in sorted((folder / "heldout").glob("*/result.json")):
        measured = _measured(path.parent, path.parent.name, flops)
        if measured is not None:
            heldout[measured.key] = measured
    return Outcome(folder, study, trials, failed, n_copies, baselines, heldout)


def _measured(folder: Path, key: str, flops: str) -> Measured | None:
    path = folder / "result.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return Measured(key, point_of(result, flops), result)
