"""An evaluation by several workers: a share for each device, with one bar over all samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.commands.workers import run_here
from himap.config import HardwareConfig
from himap.errors import UserError
from himap.hardware import devices
from himap.progress import Bar
from himap.shards import Shard, rows_so_far
from himap.workers import Ended

if TYPE_CHECKING:
    from himap.tasks.base import Task


def run(task: Task, hardware: HardwareConfig, folder: Path, identity: Mapping[str, Any], bar: Bar) -> None:
    """Start a worker for each device, show how far they are, and return when result.json is there.

    Raises:
        UserError: there is no such device, answers were made with other settings, or a worker failed.
    """
    if hardware.slurm is not None:
        raise UserError(
            "hardware.slurm: on a cluster, give an evaluation shares by a job array: sbatch --array=1-8 with "
            "himap evaluate shard=$SLURM_ARRAY_TASK_ID/8 hydra.run.dir=FOLDER hardware=cuda."
        )
    devices(hardware)  # what is wrong with them is said before a bar begins
    done = [row for row in rows_so_far(folder, identity).values() if row["error"] is None]
    died: list[Ended] = []

    def on_end(ended: Ended) -> None:
        if ended.code:
            died.append(ended)
            bar.say(str(ended))

    n_samples = len(task.samples())
    bar.begin(n_samples, len(done))
    try:
        look = watch(folder, bar, n_samples - len(done))
        run_here("evaluate", hardware, folder, look, on_end, each=_share)
    finally:
        bar.end()
    if died:
        raise UserError(f"{died[0]} The same command with hydra.run.dir={folder} goes on with what is left.")


def _share(number: int, n: int) -> list[str]:
    return [f"shard={Shard(number + 1, n)}"]


def watch(folder: Path, bar: Bar, n_left: int) -> Callable[[], None]:
    """A function that tells the bar about answers that the shares have written since its last call."""
    sizes = {path: path.stat().st_size for path in _files(folder)}
    n_new = 0

    def look() -> None:
        nonlocal n_new
        found = 0
        for path in _files(folder):
            with open(path, "rb") as file:
                file.seek(sizes.get(path, 0))
                new = file.read()
            sizes[path] = sizes.get(path, 0) + len(new)
            found += new.count(b"\n")
        # A sample may be asked twice, after a failure.
        found = min(found, n_left - n_new)
        n_new += found
        if found:
            bar.advance(found)

    return look


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*-of-*/answers.jsonl"))
