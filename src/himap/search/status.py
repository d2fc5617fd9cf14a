"""How far a sweep is, from its folder alone: nothing is locked, and no database is opened."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from himap.search.outcome import Evaluated, read_outcome
from himap.search.owner import Owner, heartbeat_age
from himap.search.presence import Present, workers
from himap.search.trials import Record, TrialStore

# The rate is that of the last trials: workers come and go.
_RATE_OVER = 20


@dataclass(frozen=True)
class Running:
    """A trial that a worker evaluates.

    Attributes:
        age_s: seconds since its last heartbeat; None between its last and the result.
        for_s: seconds since it was started.
    """

    record: Record
    age_s: float | None
    for_s: float


@dataclass(frozen=True)
class Status:
    """How far a sweep is.

    Attributes:
        name: the study's.
        budget: trials in total.
        n_done: evaluated trials.
        n_failed: trials that failed.
        n_copies: proposals that were known already; they cost nothing.
        running: trials of workers that live.
        interrupted: numbers of trials whose worker has ended; the next free worker takes them over.
        workers: everyone who lives.
        per_hour: trials an hour, lately; None before the first.
        front: trials that no other dominates.
        n_heldout: strategies checked on held-out samples.
    """

    folder: Path
    name: str
    budget: int
    n_done: int
    n_failed: int
    n_copies: int
    running: list[Running]
    interrupted: list[int]
    workers: list[Present]
    per_hour: float | None
    front: list[Evaluated]
    n_heldout: int

    @property
    def n_left(self) -> int:
        """Trials that have not ended, running ones included."""
        return max(0, self.budget - self.n_done - self.n_failed)

    @property
    def seconds_left(self) -> float | None:
        """Until the last trial ends at the present rate; None where nobody works or nothing has ended yet."""
        if not self.per_hour or not (self.workers or self.running):
            return None
        return self.n_left / self.per_hour * 3600


def read_status(folder: Path) -> Status:
    """Read how far a sweep is.

    Raises:
        UserError: the folder holds no sweep.
    """
    outcome = read_outcome(folder)
    store = TrialStore(folder)
    ended = {trial.number for trial in outcome.trials} | {record.number for record, _ in outcome.failed}
    running, interrupted = [], []
    for record in store.records():
        if record.number in ended or record.copy_of is not None:
            continue
        beat = store.heartbeat(record.number)
        if record.owner.alive(beat):
            running.append(Running(record, heartbeat_age(beat), time.time() - _started(store, record.number)))
        else:
            interrupted.append(record.number)
    return Status(
        folder=folder,
        name=outcome.study["name"],
        budget=outcome.study["search"]["trials"],
        n_done=len(outcome.trials),
        n_failed=len(outcome.failed),
        n_copies=outcome.n_copies,
        running=running,
        interrupted=interrupted,
        workers=workers(folder),
        per_hour=_per_hour(store, sorted(ended)),
        front=outcome.front,
        n_heldout=len(outcome.heldout),
    )


def trials_of(status: Status, owner: Owner) -> list[Running]:
    """The trials that a worker evaluates now."""
    return [one for one in status.running if one.record.owner == owner]


def _started(store: TrialStore, number: int) -> float:
    return (store.folder(number) / "trial.json").stat().st_mtime


def _per_hour(store: TrialStore, ended: list[int]) -> float | None:
    """Trials an hour over the last that ended, from the start of the first to the end of the last of them."""
    spans = []
    for number in ended:
        for name in ("result.json", "error.json"):
            path = store.folder(number) / name
            if path.exists():
                spans.append((path.stat().st_mtime, _started(store, number)))
                break
    spans = sorted(spans)[-_RATE_OVER:]
    if not spans:
        return None
    # A pause of the whole sweep is no slow trial: count from behind the last gap that no trial bridges.
    usual = statistics.median(end - start for end, start in spans)
    first = len(spans) - 1
    while first > 0 and spans[first][1] - spans[first - 1][0] <= max(60.0, 3 * usual):
        first -= 1
    recent = spans[first:]
    seconds = recent[-1][0] - min(start for _, start in recent)
    return 3600 * len(recent) / seconds if seconds > 0 else None
