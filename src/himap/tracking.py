"""Records runs: nowhere, in W&B's offline files, or in the user's W&B account. Results never depend on it."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from himap.config import TrackingConfig, without_secrets
from himap.result import Result

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """One run at a time: start, log what there is, finish."""

    def start(self, *, name: str, group: str | None, config: Mapping[str, Any], job_type: str) -> None:
        """Begin a run; `group` keeps the runs of a study together."""

    def log(self, numbers: Mapping[str, Any]) -> None:
        """Numbers and names that the run ends with; they stand in its summary."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table."""

    def log_scatter(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], x: str, y: str
    ) -> None:
        """A table drawn as points, column `y` over column `x`."""

    def log_image(self, name: str, path: Path) -> None:
        """A picture from a file."""

    def finish(self, *, failed: bool = False) -> None:
        """End the run; everything is on disk (or sent) afterwards."""


class NoTracker:
    """Records nothing and imports nothing."""

    def start(self, *, name: str, group: str | None, config: Mapping[str, Any], job_type: str) -> None:
        pass

    def log(self, numbers: Mapping[str, Any]) -> None:
        pass

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        pass

    def log_scatter(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], x: str, y: str
    ) -> None:
        pass

    def log_image(self, name: str, path: Path) -> None:
        pass

    def finish(self, *, failed: bool = False) -> None:
        pass


class WandbTracker:
    """Records into W&B, by default into files under the run's folder.

    Args:
        config: project, entity, tags; `online` uses the account where it answers in time.
        folder: W&B's own files go below it, into `wandb/`.
    """

    def __init__(self, config: TrackingConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        # An explicit mode beats WANDB_MODE, so `online` leaves the choice to the environment.
        self._mode: Any = None
        if config.name == "offline" or not _answers(config.init_timeout_s):
            self._mode = "offline"
        self._active: Run | None = None

    @property
    def _run(self) -> Run:
        if self._active is None:
            raise RuntimeError("no run was started")
        return self._active

    def start(self, *, name: str, group: str | None, config: Mapping[str, Any], job_type: str) -> None:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        # Threads may record several runs of one process: each tracker keeps its own.
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=self._config.init_timeout_s,
            reinit="create_new",
            x_disable_stats=True,
            x_disable_machine_info=True,
            disable_git=True,
            disable_code=True,
        )
        self._active = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            name=name,
            group=group or None,
            job_type=job_type,
            tags=list(self._config.tags),
            config=without_secrets(dict(config)),
            dir=str(self._folder),
            mode=self._mode,
            settings=settings,
        )

    def log(self, numbers: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(numbers))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def log_scatter(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], x: str, y: str
    ) -> None:
        import wandb

        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({name: wandb.plot.scatter(table, x, y, title=name)})

    def log_image(self, name: str, path: Path) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(path))})

    def finish(self, *, failed: bool = False) -> None:
        self._run.finish(exit_code=1 if failed else 0)
        self._active = None


def create(config: TrackingConfig, folder: Path) -> Tracker:
    """The tracker that a configuration names; with `none`, W&B is not imported."""
    return NoTracker() if config.name == "none" else WandbTracker(config, folder)


def numbers(result: Result) -> dict[str, Any]:
    """What of a result is recorded, flat: metrics, interval, FLOPs, tokens kept, speed."""
    low, high = result.ci95 or (None, None)
    flat = {
        **{f"metrics/{name}": value for name, value in result.metrics.items()},
        "ci95/low": low,
        "ci95/high": high,
        **{f"flops/{name}": value for name, value in result.flops.items()},
        **{f"kept/layer_{layer:g}": n for layer, n in result.kept},
        "n_samples": result.n_samples,
        "n_failed": result.n_failed,
        "samples_per_second": result.samples_per_second,
    }
    return {name: value for name, value in flat.items() if value is not None}


# With a wrong key and no network wandb.init blocks for minutes, whatever its own timeout says; only a process
# of its own can be stopped in time.
_PROBE = "import wandb, sys; sys.exit(0 if wandb.login(verify=True) else 1)"


@functools.cache
def _answers(timeout_s: float) -> bool:
    """Whether W&B knows the user within the time; says in one line why not."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return True
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
        reason = "does not know this account" if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"does not answer within {timeout_s:g} s"
    if reason:
        log.warning("tracking=online: W&B %s; recording offline (`wandb sync` uploads it later)", reason)
    return not reason
