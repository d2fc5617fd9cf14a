"""Records a sweep's trials in W&B beside the search, one run a trial, and the study at its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from himap import tracking
from himap.config import TrackingConfig
from himap.report.compare import Comparison
from himap.result import Result
from himap.search.owner import locked
from himap.search.trials import TrialStore

log = logging.getLogger(__name__)


class Recorder:
    """Records trials in a thread of its own, because opening a run takes a third of a second.

    A trial's folder is marked once it is recorded: what a kill prevented is recorded when the sweep goes on.
    """

    def __init__(
        self, config: TrackingConfig, folder: Path, settings: Mapping[str, Any], name: str | None
    ) -> None:
        self._config = config
        self._folder = folder
        self._settings = dict(settings)
        self._group = config.group or name or folder.name
        self._store = TrialStore(folder)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: dict[int, Future[None]] = {}

    def __enter__(self) -> Recorder:
        for record in self._store.records():
            ended = self._store.result(record.number) or self._store.error(record.number)
            if ended and record.copy_of is None:
                self.record_trial(record.number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a stop by the user the rest waits for the next start.
        self._thread.shutdown(cancel_futures=kind is KeyboardInterrupt)
        for number, future in self._pending.items():
            if not future.cancelled() and (reason := future.exception()) is not None:
                log.warning("trial %d is not recorded in W&B yet: %s", number, reason)

    def record_trial(self, number: int) -> None:
        """Record a trial that has ended, soon."""
        if self._config.name != "none" and not self._mark(number).exists():
            self._pending[number] = self._thread.submit(self._record, number)

    def record_study(self, comparison: Comparison) -> None:
        """Record the study: its trials as table and scatter, the front's picture, the summary's numbers."""
        self._thread.submit(self._record_study, comparison).result()

    def _mark(self, number: int) -> Path:
        return self._store.folder(number) / ".recorded"

    def _record(self, number: int) -> None:
        # Two workers may know of the trial; a killed one lets go by itself.
        with locked(self._store.folder(number)):
            if not self._mark(number).exists():
                self._record_now(number)
                self._mark(number).touch()

    def _record_now(self, number: int) -> None:
        record, result = self._store.record(number), self._store.result(number)
        if record is None:
            return
        tracker = tracking.create(self._config, self._folder)
        tracker.start(
            name=f"trial-{number}",
            group=self._group,
            config={**self._settings, "trial": number, "params": record.params},
            job_type="trial",
        )
        if result is not None:
            tracker.log({**tracking.numbers(Result.from_dict(result)), **_prefixed("params", record.params)})
        else:
            tracker.log({"error": self._store.error(number)})
        tracker.finish(failed=result is None)

    def _record_study(self, comparison: Comparison) -> None:
        outcome = comparison.outcome
        tracker = tracking.create(self._config, self._folder)
        tracker.start(name=self._group, group=self._group, config=self._settings, job_type="study")
        axes = outcome.study["axes"]
        columns = ["trial", *axes, "accuracy", "flops_share", "on_front"]
        front = {trial.number for trial in outcome.front}
        rows = [
            [
                trial.number,
                *(trial.params[name] for name in axes),
                trial.point.accuracy,
                trial.point.share,
                trial.number in front,
            ]
            for trial in outcome.trials
        ]
        tracker.log_table("trials", columns, rows)
        tracker.log_scatter("accuracy_over_flops", columns, rows, "flops_share", "accuracy")
        tracker.log_image("pareto", self._folder / "pareto.png")
        tracker.log(
            {
                "n_trials": len(outcome.trials),
                "n_failed": len(outcome.failed),
                "n_front": len(front),
                "hypervolume": comparison.hypervolume,
                "heldout_hypervolume": comparison.heldout_hypervolume,
            }
        )
        tracker.finish()


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{key}": value for key, value in values.items()}
