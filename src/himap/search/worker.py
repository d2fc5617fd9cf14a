"""One worker of a sweep: ask, evaluate, write the truth, tell; and mend what a killed worker left behind."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from himap.errors import UserError
from himap.search import group as groups
from himap.search.evaluator import Evaluator, Job, Reply, ask
from himap.search.front import Point
from himap.search.outcome import point_of
from himap.search.owner import Owner, heartbeat, locked
from himap.search.presence import workers
from himap.search.propose import Proposer, known_of, taken, waiting
from himap.search.sampler import DYNAMIC, LEARNING
from himap.search.space import Params, Space
from himap.search.trials import Record, TrialStore

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

# So many failures in a row mean that something is wrong with the set-up, not with a configuration.
MAX_FAILURES_IN_ROW = 5
# A sampler that proposes known configurations so often in a row gets a random new one instead.
_MAX_COPIES_IN_ROW = 8


@dataclass(frozen=True)
class Finished:
    """What a worker tells whoever watches: a trial has ended."""

    number: int
    params: Params
    point: Point | None
    error: str | None


@dataclass
class Worker:
    """Works on a study until `budget` configurations are evaluated, together with any other workers.

    Attributes:
        folder: the sweep's folder.
        proposer: chooses what is evaluated, where that is not the study's sampler.
        group: how many trials are evaluated together: `auto` or a number.
        most: the most that `auto` takes.
        max_attempts: after so many starts whose process died a trial is recorded as failed.
        split: where trials are evaluated.
        flops: which share is the second objective.
        on_progress: hears how many trials run together, and the share of their work that is done.
        on_finished: called after each evaluated trial.
    """

    study: Study
    space: Space
    folder: Path
    evaluate: Evaluator
    budget: int
    proposer: Proposer
    group: int | str = 1
    most: int = groups.MOST
    max_attempts: int = 2
    split: str = "search"
    flops: str = "paper"
    on_progress: Callable[[int, float], None] = lambda n, share: None
    on_finished: Callable[[Finished], None] = lambda finished: None
    _failures_in_row: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.store = TrialStore(self.folder)

    def run(self) -> None:
        """Evaluate until the budget is spent or the space has nothing new.

        Raises:
            UserError: the first trials, or several in a row, failed.
        """
        try:
            while records := self._next():
                self._work(records)
        except KeyboardInterrupt:
            self._give_back()
            raise

    def _give_back(self) -> None:
        """After a user's or a cluster's stop, wherever it came: it is not the trials' fault, and the next
        worker that looks, on whatever host, goes on with them."""
        # Under the lock, for a worker of another host may take over a trial as soon as it has no heartbeat.
        with locked(self.folder):
            for record in self.store.records():
                number = record.number
                ended = self.store.result(number) is not None or self.store.error(number) is not None
                if record.owner == Owner.me() and record.copy_of is None and not ended:
                    self.store.start(replace(record, attempt=max(0, record.attempt - 1)))
                    self.store.heartbeat(number).unlink(missing_ok=True)

    def _next(self) -> list[Record]:
        """The trials to evaluate next: those that a dead worker left, or new ones; none when all is done."""
        with locked(self.folder):
            trials = self._trials()
            if orphans := self._orphans(trials):
                if adopted := self._adopt(orphans):
                    return adopted
                trials = self._trials()
            records: list[Record] = []
            # Under the lock only this worker begins trials, and others can only end theirs.
            n_taken, known, size = taken(trials), known_of(trials), self._size(trials)
            n_copies, fresh = 0, True
            while len(records) < size and n_taken < self.budget:
                own = self.proposer.own or n_copies >= _MAX_COPIES_IN_ROW
                if own and not fresh:
                    trials = self._trials()
                fresh = False
                record: Record | None
                if own and not waiting(trials):
                    params = self.proposer.choose(trials, [record.params for record in records])
                    if params is None:
                        break
                    record = self._begin(params, known, together=size > 1)
                else:
                    record = self._claim(self.study.ask(), known, together=size > 1)
                if record is None:
                    n_copies += 1
                else:
                    records.append(record)
                    n_taken += 1
                    n_copies = 0
            return records

    def _trials(self) -> list[FrozenTrial]:
        """All of the study; a question that costs a database some milliseconds."""
        return self.study.get_trials(deepcopy=False)

    def _size(self, trials: Sequence[FrozenTrial]) -> int:
        """How many new trials to take; `trials` are all of the study."""
        from optuna.trial import TrialState

        if self.group != "auto":
            return int(self.group)
        states = [trial.state for trial in trials if "copy_of" not in trial.user_attrs]
        return groups.size(
            self.most,
            n_left=self.budget - taken(trials),
            n_workers=self._n_alive(trials),
            n_waiting=waiting(trials),
            n_known=states.count(TrialState.COMPLETE) if self.proposer.sampler in LEARNING else None,
        )

    def _n_alive(self, trials: Sequence[FrozenTrial]) -> int:
        """Processes that work on the sweep, this one included."""
        from optuna.trial import TrialState

        running = (trial.number for trial in trials if trial.state == TrialState.RUNNING)
        records = (self.store.record(number) for number in running)
        owners = {record.owner for record in records if record is not None}
        return len({Owner.me(), *owners, *(worker.owner for worker in workers(self.folder))})

    def n_ended(self) -> int:
        """Configurations whose evaluation has ended, well or not."""
        from optuna.trial import TrialState

        ended = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        return sum("copy_of" not in trial.user_attrs for trial in ended)

    def others_running(self) -> bool:
        """Whether another worker still evaluates a trial."""
        from optuna.trial import TrialState

        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _orphans(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those that run by the database, and have no worker that lives."""
        from optuna.trial import TrialState

        found = []
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                record = self.store.record(trial.number)
                if record is None or not record.owner.alive(self.store.heartbeat(trial.number)):
                    found.append(trial)
        return found

    def _adopt(self, orphans: Sequence[FrozenTrial]) -> list[Record]:
        """Tell results that were written but not told, and take over trials whose owners died.

        At the first retry all of them together; after a second death one by one, because one that kills
        its process must not take the others with it.
        """
        from optuna.trial import Trial

        first: list[tuple[FrozenTrial, int]] = []
        later: list[tuple[FrozenTrial, int]] = []
        for frozen in orphans:
            record = self.store.record(frozen.number)
            if self.store.result(frozen.number) is not None or self.store.error(frozen.number) is not None:
                self._tell(frozen.number)
                continue
            attempt = 0 if record is None else record.attempt
            # What died in a group may have died of another's fault: before it is given up it runs alone.
            if record is not None and attempt >= self.max_attempts and not record.together:
                self.store.fail(frozen.number, f"its process died {attempt} times during this trial")
                self._tell(frozen.number)
                continue
            (first if attempt <= 1 else later).append((frozen, attempt + 1))
        if not first and not later:
            return []
        most = self.most if self.group == "auto" else int(self.group)
        known = known_of(self._trials())
        adopted = []
        for some in (first[:most], *([orphan] for orphan in later)):
            for frozen, attempt in some:
                # Parameters and, where it got that far, answers are kept: it goes on under its number.
                trial = Trial(self.study, frozen._trial_id)
                adopted.append(self._claim(trial, known, together=len(some) > 1, attempt=attempt))
            if any(adopted):
                break
        return [record for record in adopted if record is not None]

    def _begin(self, params: Params, known: dict[str, int], *, together: bool) -> Record:
        """Begin a trial of a configuration that the proposer chose, in one step of the database."""
        from optuna.trial import TrialState

        key = self.space.key(self.space.strategy(params))
        dynamic = self.proposer.sampler in DYNAMIC
        begun = self.space.trial(params, dynamic, state=TrialState.RUNNING, user_attrs={"key": key})
        storage = self.study._storage
        number = storage.get_trial_number_from_id(storage.create_new_trial(self.study._study_id, begun))
        record = Record(number, params, key, attempt=1, owner=Owner.me(), together=together)
        self.store.start(record)
        known[key] = number
        return record

    def _claim(
        self, trial: Trial, known: dict[str, int], *, together: bool, attempt: int = 1
    ) -> Record | None:
        """Make a trial this process's own; None if an equal one is known, whose result is told at once.

        Args:
            known: key -> number of what is evaluated or being evaluated; takes this one in.
        """
        params = self.space.suggest(trial, dynamic=self.proposer.sampler in DYNAMIC)
        key = self.space.key(self.space.strategy(params))
        source = known.get(key)
        if source is None or source == trial.number:
            record = Record(trial.number, params, key, attempt, Owner.me(), together=together)
            # The folder first: what has a key in the database also has its parameters on disk.
            self.store.start(record)
            if trial.user_attrs.get("key") != key:
                trial.set_user_attr("key", key)
            known[key] = trial.number
            return record
        trial.set_user_attr("copy_of", source)
        self.store.start(Record(trial.number, params, key, attempt, Owner.me(), copy_of=source))
        result = self.store.result(source)
        if result is None:
            self.store.fail(trial.number, f"equal to trial {source}, which is being evaluated")
        else:
            self.store.finish(trial.number, result)
        self._tell(trial.number)
        return None

    def _work(self, records: Sequence[Record]) -> None:
        """Evaluate claimed trials together; write and tell what came of each."""
        error: str | None = None
        jobs = [Job(self.space.strategy(r.params), self.store.folder(r.number)) for r in records]
        with ExitStack() as alive:
            # Until they are told: a worker on another host takes a trial without a heartbeat for abandoned.
            for record in records:
                alive.enter_context(heartbeat(self.store.heartbeat(record.number)))
            replies = ask(self.evaluate, jobs, self.split, lambda n: self.on_progress(len(jobs), n))
            for record, reply in zip(records, replies, strict=True):
                error = self._conclude(record, reply)

        if self._failures_in_row >= MAX_FAILURES_IN_ROW:
            path = jobs[-1].folder / "traceback.txt"
            raise UserError(
                f"search: {self._failures_in_row} trials in a row failed, the last one with: {error} "
                f"(see {path}; start again to go on)."
            )

    def _conclude(self, record: Record, reply: Reply) -> str | None:
        """Write what came of a trial, then tell it; returns why it failed."""
        number, error, point = record.number, None, None
        if not isinstance(reply, Exception):
            try:
                found = point_of(reply, self.flops)
                self.store.finish(number, reply)
                point = found
            except Exception as caught:
                reply = caught
        if isinstance(reply, Exception):
            error = "".join(traceback.format_exception_only(reply)).strip()
            self.store.fail(number, error)
            text = "".join(traceback.format_exception(reply))
            (self.store.folder(number) / "traceback.txt").write_text(text, encoding="utf-8")
        self._tell(number)
        self._failures_in_row = self._failures_in_row + 1 if error else 0
        self.on_finished(Finished(number, record.params, point, error))
        return error

    def _tell(self, number: int) -> None:
        """Tell the database what lies on disk, where nobody has done so yet."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        result = self.store.result(number)
        state, values = TrialState.FAIL, None
        if result is not None:
            point = point_of(result, self.flops)
            state, values = TrialState.COMPLETE, [point.accuracy, point.share]
        storage, study = self.study._storage, self.study._study_id
        # Not by `study.tell`, which reads the whole trial three times: our samplers do nothing when one ends.
        try:
            trial = storage.get_trial_id_from_study_id_trial_number(study, number)
            storage.set_trial_state_values(trial, state, values)
        except UpdateFinishedTrialError:
            # Between a look at the database and a look at its heartbeat, a trial of another host has ended.
            pass
