"""One worker of a sweep: ask, evaluate, write the truth, tell; and mend what a killed worker left behind."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from himap.errors import UserError
from himap.search.evaluator import Evaluator, Job, ask
from himap.search.front import Point
from himap.search.outcome import point_of
from himap.search.owner import Owner, heartbeat, locked
from himap.search.sampler import DYNAMIC
from himap.search.space import Params, Space
from himap.search.trials import Record, TrialStore

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

# A trial whose process died this often (out of memory, say) is recorded as failed instead of killing forever.
MAX_ATTEMPTS = 3
# So many failures in a row mean that something is wrong with the set-up, not with a configuration.
MAX_FAILURES_IN_ROW = 5
# A sampler that proposes known configurations so often in a row gets a random new one instead.
_MAX_COPIES_IN_ROW = 8
_MAX_DRAWS = 2000


@dataclass(frozen=True)
class Finished:
    """What a worker tells whoever watches: a trial has ended."""

    number: int
    params: Params
    point: Point | None
    error: str | None
    n_done: int


@dataclass
class Worker:
    """Works on a study until `budget` configurations are evaluated, together with any other workers.

    Attributes:
        folder: the sweep's folder.
        sampler: name of the study's sampler.
        split: where trials are evaluated.
        flops: which share is the second objective.
        on_finished: called after each evaluated trial.
    """

    study: Study
    space: Space
    folder: Path
    evaluate: Evaluator
    budget: int
    sampler: str
    seed: int
    split: str = "search"
    flops: str = "paper"
    on_finished: Callable[[Finished], None] = lambda finished: None
    _failures_in_row: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.store = TrialStore(self.folder)

    def run(self) -> None:
        """Evaluate until the budget is spent or the space has nothing new.

        Raises:
            UserError: the first trials, or several in a row, failed.
        """
        while (job := self._next()) is not None:
            self._work(*job)

    def _next(self) -> tuple[Trial, Record] | None:
        """The next trial to evaluate: one that a dead worker left, or a new one; None when there is none."""
        with locked(self.folder):
            adopted = self._mend()
            if adopted is not None:
                return adopted
            n_copies = 0
            while self.n_taken() < self.budget:
                if not self._propose(force=n_copies >= _MAX_COPIES_IN_ROW):
                    return None
                trial = self.study.ask()
                job = self._claim(trial)
                if job is not None:
                    return job
                n_copies += 1
            return None

    def n_taken(self) -> int:
        """Configurations that are evaluated or being evaluated: what the budget counts."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        return sum(t.state != TrialState.WAITING and "copy_of" not in t.user_attrs for t in trials)

    def n_ended(self) -> int:
        """Configurations whose evaluation has ended, well or not."""
        from optuna.trial import TrialState

        ended = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        return sum("copy_of" not in trial.user_attrs for trial in ended)

    def others_running(self) -> bool:
        """Whether another worker still evaluates a trial."""
        from optuna.trial import TrialState

        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _mend(self) -> tuple[Trial, Record] | None:
        """Tell results that were written but not told, and take over a trial whose owner died."""
        from optuna.trial import Trial, TrialState

        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = self.store.record(frozen.number)
            if record is not None and record.owner.alive(self.store.heartbeat(frozen.number)):
                continue
            if self.store.result(frozen.number) is not None or self.store.error(frozen.number) is not None:
                self._tell(frozen.number)
                continue
            if record is not None and record.attempt >= MAX_ATTEMPTS:
                self.store.fail(frozen.number, f"its process died {record.attempt} times during this trial")
                self._tell(frozen.number)
                continue
            # Its parameters and, where it got that far, its answers are kept: it goes on under its number.
            trial = Trial(self.study, frozen._trial_id)
            job = self._claim(trial, attempt=record.attempt + 1 if record else 1)
            if job is not None:
                return job
        return None

    def _propose(self, force: bool) -> bool:
        """Enqueue a configuration where the sampler is not to choose; False when the space is exhausted."""
        from optuna.trial import TrialState

        if not force and self.sampler != "grid":
            return True
        if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return True
        params = self._unseen()
        if params is None:
            return False
        self.study.enqueue_trial(self.space.fixed(params))
        return True

    def _unseen(self) -> Params | None:
        known = set(self._known())
        rng = random.Random(f"{self.seed}-{len(known)}")
        if self.sampler == "grid":
            candidates = list(self.space.grid())
            random.Random(self.seed).shuffle(candidates)
        else:
            candidates = [self.space.draw(rng) for _ in range(_MAX_DRAWS)]
        for params in candidates:
            if self.space.key(self.space.strategy(params)) not in known:
                return params
        return None

    def _known(self) -> dict[str, int]:
        """Key -> number of what is evaluated or being evaluated; what failed may be tried again."""
        from optuna.trial import TrialState

        known: dict[str, int] = {}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING)):
            if "key" in trial.user_attrs and "copy_of" not in trial.user_attrs:
                known.setdefault(trial.user_attrs["key"], trial.number)
        return known

    def _claim(self, trial: Trial, attempt: int = 1) -> tuple[Trial, Record] | None:
        """Make a trial this process's own; None if an equal one is known, whose result is told at once."""
        params = self.space.suggest(trial, dynamic=self.sampler in DYNAMIC)
        key = self.space.key(self.space.strategy(params))
        known = self._known()
        source = known.get(key)
        if source is None or source == trial.number:
            record = Record(trial.number, params, key, attempt, Owner.me())
            # The folder first: what has a key in the database also has its parameters on disk.
            self.store.start(record)
            trial.set_user_attr("key", key)
            return trial, record
        trial.set_user_attr("copy_of", source)
        self.store.start(Record(trial.number, params, key, attempt, Owner.me(), copy_of=source))
        result = self.store.result(source)
        if result is None:
            self.store.fail(trial.number, f"equal to trial {source}, which is being evaluated")
        else:
            self.store.finish(trial.number, result)
        self._tell(trial.number)
        return None

    def _work(self, trial: Trial, record: Record) -> None:
        number = trial.number
        folder = self.store.folder(number)
        error: str | None = None
        with heartbeat(self.store.heartbeat(number)):
            try:
                job = Job(self.space.strategy(record.params), folder)
                (reply,) = ask(self.evaluate, [job], self.split, lambda share: None)
                if not isinstance(reply, Exception):
                    try:
                        point_of(reply, self.flops)
                        self.store.finish(number, reply)
                    except Exception as caught:
                        reply = caught
            except KeyboardInterrupt:
                # A user's stop is not the trial's fault; it goes on when the sweep is started again.
                self.store.start(replace(record, attempt=record.attempt - 1))
                raise
            if isinstance(reply, Exception):
                error = "".join(traceback.format_exception_only(reply)).strip()
                self.store.fail(number, error)
                text = "".join(traceback.format_exception(reply))
                (folder / "traceback.txt").write_text(text, encoding="utf-8")
        frozen = self._tell(number)
        self.on_finished(Finished(number, record.params, self._point(frozen), error, n_done=self.n_ended()))
        self._failures_in_row = self._failures_in_row + 1 if error else 0
        if self._failures_in_row >= MAX_FAILURES_IN_ROW:
            raise UserError(
                f"search: {self._failures_in_row} trials in a row failed, the last one with: {error} "
                f"(see {folder / 'traceback.txt'}; start again to go on)."
            )

    def _tell(self, number: int) -> FrozenTrial:
        """Tell the database what lies on disk."""
        from optuna.trial import TrialState

        result = self.store.result(number)
        if result is None:
            return self.study.tell(number, state=TrialState.FAIL)
        point = point_of(result, self.flops)
        return self.study.tell(number, values=(point.accuracy, point.share))

    def _point(self, frozen: FrozenTrial) -> Point | None:
        return Point(*frozen.values) if frozen.values is not None else None
