"""A sweep by several workers: started for each device or on a cluster, with one bar over the whole study."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from himap.commands.workers import himap_words, run_here
from himap.config import HardwareConfig, SlurmConfig
from himap.errors import ConfigError, UserError
from himap.progress import Bar, Quiet, bar
from himap.search.heldout import choose
from himap.search.outcome import is_sweep, read_outcome
from himap.search.status import read_status
from himap.search.study import Sweep
from himap.search.trials import TrialStore
from himap.workers import Ended

# How often a cluster is asked what became of the jobs: many people ask it.
_ASK_EVERY_S = 15.0
_LOOK_EVERY_S = 2.0


def run(sweep: Sweep, hardware: HardwareConfig, folder: Path) -> None:
    """Start workers, show how far they are, and print the front at the end.

    Raises:
        UserError: workers cannot be started, or all of them ended before the budget was spent.
    """
    watch = Watch(sweep, folder)
    died: list[str] = []

    def on_end(ended: Ended) -> None:
        if ended.code:
            died.append(str(ended))
            watch.say(str(ended))

    try:
        if hardware.slurm is not None:
            _run_on_slurm(sweep, hardware.slurm, folder, watch)
        else:
            run_here("sweep", hardware, folder, watch.look, on_end)
    finally:
        watch.end()
    _conclude(folder, died)


def _run_on_slurm(sweep: Sweep, slurm: SlurmConfig, folder: Path, watch: Watch) -> None:
    from himap.workers.slurm import in_queue, logs, submit

    if sweep.config.storage == "sqlite":
        raise ConfigError(
            "search.storage=sqlite: is for one machine; workers on several nodes need search.storage=journal "
            "or a database URL."
        )
    place = folder / "workers" / "slurm"
    words = himap_words("sweep", folder, ["hardware.slurm=null"])
    jobs = submit(slurm, words, place, f"himap-{folder.name}")
    watch.say(
        f"jobs {', '.join(jobs)} work in {folder} (himap sweep --status {folder} tells how far they are)"
    )
    queued = dict.fromkeys(jobs, "PENDING")
    try:
        while queued:
            asked = time.monotonic()
            while time.monotonic() - asked < _ASK_EVERY_S and not watch.complete:
                watch.look()
                time.sleep(_LOOK_EVERY_S)
            before, queued = queued, in_queue(jobs)
            if watch.complete:
                return
            for job in before.keys() - queued.keys():
                last = " / ".join(logs(place, job))
                watch.say(f"job {job} has ended{': ' + last if last else ''}")
    except KeyboardInterrupt:
        mains = " ".join(sorted({job.partition("_")[0] for job in queued}))
        watch.say(f"the jobs go on without this window (to end them: scancel {mains})")
        raise


def _conclude(folder: Path, died: list[str]) -> None:
    from himap.report.sweep import write_report
    from himap.report.table import print_front

    if not is_sweep(folder) or not read_outcome(folder).trials:
        reason = died[0] if died else f"no worker evaluated a trial (see {folder / 'workers'})."
        raise UserError(reason)
    print_front(write_report(folder))
    for name in ("summary.md", "front.csv", "pareto.png"):
        print(folder / name)
    status = read_status(folder)
    # A space that holds fewer configurations than the budget ends with its check done.
    if status.n_left and (died or not status.n_heldout):
        raise UserError(
            f"{folder}: {status.n_left} of {status.budget} trials are left, and no worker lives "
            f"(the same command with hydra.run.dir={folder} goes on)."
        )


class Watch:
    """Bars over a sweep's trials and its held-out check, read from what its workers write.

    Attributes:
        complete: whether the last file of the check is there.
    """

    def __init__(self, sweep: Sweep, folder: Path) -> None:
        self._sweep, self._folder = sweep, folder
        self._store = TrialStore(folder)
        self._ended: set[int] = set()
        self._copies: set[int] = set()
        self._bar: Bar = Quiet()
        self._begun = ""
        self._checked: set[str] = set()
        self._to_check: list[str] = []
        self.complete = False

    def look(self) -> None:
        """Show what has ended since the last look."""
        if not self._store.root.exists():
            return
        if self._begun == "held-out":
            self._look_at_check()
            return
        new = self._new()
        if not self._begun:
            self._begin("trials", self._sweep.config.trials, len(new))
        elif new:
            self._bar.advance(len(new), f"trial {max(new)}")
        if len(self._ended) >= self._sweep.config.trials:
            outcome = read_outcome(self._folder)
            most = self._sweep.config.heldout_points
            self._to_check = list(choose(outcome, self._sweep.space, self._sweep.baselines, most))
            self._checked = {key for key in self._to_check if key in outcome.heldout}
            self._begin("held-out", len(self._to_check), len(self._checked))
            self._look_at_check()

    def say(self, text: str) -> None:
        """A message that stays, above the bar."""
        if self._begun:
            self._bar.say(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Look once more, and close the bar."""
        self.look()
        self._bar.end()

    def _begin(self, name: str, total: int, done: int) -> None:
        self._bar.end()
        self._begun = name
        self._bar = bar(name)
        self._bar.begin(total, done)

    def _new(self) -> set[int]:
        """Numbers of the trials that have ended since the last look, copies aside."""
        new = set()
        for path in self._store.root.iterdir():
            if not path.name.isdecimal() or (number := int(path.name)) in self._ended | self._copies:
                continue
            if (path / "result.json").exists() or (path / "error.json").exists():
                record = self._store.record(number)
                if record is not None and record.copy_of is None:
                    new.add(number)
                else:
                    self._copies.add(number)
        self._ended |= new
        return new

    def _look_at_check(self) -> None:
        new = {
            key
            for key in self._to_check
            if key not in self._checked and (self._folder / "heldout" / key / "result.json").exists()
        }
        if new:
            self._checked |= new
            self._bar.advance(len(new))
        self.complete = len(self._checked) == len(self._to_check)
