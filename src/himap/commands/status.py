"""`himap sweep --status FOLDER`: trials, workers, rate, estimate and front of a sweep, also while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from himap.errors import UserError
from himap.progress import duration
from himap.search.status import Running, Status, read_status, trials_of


def main(arguments: Sequence[str]) -> None:
    """Takes `--status FOLDER`, or `--status` behind the command that started the sweep.

    Raises:
        UserError: no folder is given, or it holds no sweep.
    """
    words = [word for word in arguments if word != "--status"]
    typed = [word.partition("=")[2] for word in words if word.startswith("hydra.run.dir=")]
    folders = typed or [word for word in words if "=" not in word and not word.startswith("-")]
    if len(folders) != 1:
        raise UserError("himap sweep --status: needs the sweep's folder (himap sweep --status FOLDER).")
    show(read_status(Path(folders[0])))


def show(status: Status) -> None:
    """Print it."""
    from rich.console import Console
    from rich.table import Table

    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"{status.name} in {status.folder}")
    say(_trials(status))
    say(_rate(status))
    for worker in status.workers:
        trials = trials_of(status, worker.owner)
        where = f"{worker.owner.host}, process {worker.owner.pid}, {worker.device}"
        job = f", job {worker.job}" if worker.job else ""
        say(f"worker on {where}{job}: {_doing(trials)}, heartbeat {duration(worker.age_s)} ago")
    if status.interrupted:
        numbers = ", ".join(str(number) for number in status.interrupted)
        say(f"interrupted, for the next free worker: trial {numbers}")
    if not status.front:
        return
    table = Table(title=f"front so far, {status.n_heldout} strategies checked on held-out samples")
    for column in ("trial", "accuracy", "FLOPs share", "strategy"):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for trial in status.front:
        point = trial.point
        table.add_row(f"{trial.number}", f"{point.accuracy:.1f}", f"{point.share:.1%}", _params(trial.params))
    console.print(table)


def _trials(status: Status) -> str:
    parts = [
        f"{status.n_done} done",
        f"{status.n_failed} failed",
        f"{len(status.running)} running",
        f"{max(0, status.n_left - len(status.running))} to do",
    ]
    copies = f"; {status.n_copies} proposals were known already" if status.n_copies else ""
    return f"trials: {', '.join(parts)}, of {status.budget}{copies}"


def _rate(status: Status) -> str:
    n = len(status.workers)
    text = f"workers: {n}" if n else "workers: none lives"
    if status.per_hour is not None:
        text += f", {_number(status.per_hour)} trials an hour lately"
    if status.n_left and status.seconds_left is not None:
        text += f", about {duration(status.seconds_left)} left for the trials"
    return text


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _doing(trials: Sequence[Running]) -> str:
    if not trials:
        return "between trials"
    numbers = ", ".join(f"{one.record.number}" for one in trials)
    return f"trial {numbers} for {duration(max(one.for_s for one in trials))}"


def _params(params: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )
