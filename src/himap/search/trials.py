"""The truth of a sweep on disk: one folder a trial. Reports read it; the database only serves the sampler.

trials/<n>/trial.json is written when a trial starts (parameters, owner, attempt), result.json or error.json
when it has ended, each in one atomic step and before the database is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from himap.files import write_json
from himap.search.owner import Owner
from himap.search.space import Params


@dataclass(frozen=True)
class Record:
    """A trial as it lies on disk.

    Attributes:
        number: Optuna's number of the trial and the name of its folder.
        params: its configuration.
        key: what makes configurations equal, see `Space.key`.
        attempt: how often its evaluation was started.
        owner: the process that evaluates or evaluated it.
        together: whether it is evaluated in a group, so that a death may be another trial's fault.
        copy_of: the trial whose result it shares, because their configurations are equal.
    """

    number: int
    params: Params
    key: str
    attempt: int
    owner: Owner
    together: bool = False
    copy_of: int | None = None


class TrialStore:
    """Reads and writes the trials of one sweep folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "trials"

    def folder(self, number: int) -> Path:
        return self.root / f"{number}"

    def heartbeat(self, number: int) -> Path:
        return self.folder(number) / ".heartbeat"

    def start(self, record: Record) -> None:
        self.folder(record.number).mkdir(parents=True, exist_ok=True)
        # Before the owner is named: on another host its first heartbeat is what says that it lives.
        self.heartbeat(record.number).touch()
        write_json(self.folder(record.number) / "trial.json", asdict(record))

    def finish(self, number: int, result: dict[str, Any]) -> None:
        write_json(self.folder(number) / "result.json", result)

    def fail(self, number: int, error: str) -> None:
        write_json(self.folder(number) / "error.json", {"error": error})

    def record(self, number: int) -> Record | None:
        value = _read(self.folder(number) / "trial.json")
        if value is None:
            return None
        return Record(**{**value, "owner": Owner(**value["owner"])})

    def result(self, number: int) -> dict[str, Any] | None:
        return _read(self.folder(number) / "result.json")

    def error(self, number: int) -> str | None:
        value = _read(self.folder(number) / "error.json")
        return None if value is None else str(value["error"])

    def records(self) -> Iterator[Record]:
        """All trials that were started, by number."""
        numbers = sorted(int(path.name) for path in self.root.glob("*") if path.name.isdecimal())
        for number in numbers:
            record = self.record(number)
            if record is not None:
                yield record


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
