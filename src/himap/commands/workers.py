"""Verbs on which several processes work: the command of a worker, and a worker for each device."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from himap.config import HardwareConfig
from himap.workers import Command, Ended, run_workers

# What a worker is told anew, and what only its parent obeys.
_PARENTS = r"hydra\.(run|sweep|mode|launcher)\b.*|hydra/(launcher|sweeper)"


def himap_words(verb: str, folder: Path, changes: Sequence[str]) -> list[str]:
    """The words after the interpreter that run a verb again, configured as the job that runs now.

    Args:
        folder: where it writes.
        changes: overrides that replace those typed.
    """
    hydra = HydraConfig.get()
    words = ["-m", "himap", verb]
    if hydra.job.config_name not in (None, verb):
        words += ["--config-name", str(hydra.job.config_name)]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            words += ["--config-dir", source.path]
    changed = {_key(change) for change in changes}
    for override in [*hydra.overrides.task, *hydra.overrides.hydra]:
        if _key(override) not in changed and not re.fullmatch(_PARENTS, _key(override)):
            words.append(override)
    return [*words, *changes, f"hydra.run.dir={_quoted(str(folder))}"]


def run_here(
    verb: str,
    hardware: HardwareConfig,
    folder: Path,
    watch: Callable[[], None],
    on_end: Callable[[Ended], None],
    each: Callable[[int, int], Sequence[str]] = lambda number, n: (),
) -> list[Ended]:
    """Run a verb in one process for each device of `hardware.devices`; logs lie in <folder>/workers/.

    Args:
        each: what is changed further for the worker of that number, of n.

    Raises:
        UserError: there is no such device.
    """
    from himap.hardware import devices

    names = devices(hardware)
    variables = {}
    if hardware.n_threads is None and "OMP_NUM_THREADS" not in os.environ and (n := names.count("cpu")) > 1:
        # Each would take all cores.
        variables["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // n))
    commands = []
    for number, device in enumerate(names):
        changes = ["hardware.devices=null", f"hardware.device={device}", *each(number, len(names))]
        words = [sys.executable, *himap_words(verb, folder, changes)]
        commands.append(Command(f"{number}-{device.replace(':', '')}", words, variables))
    return run_workers(commands, folder / "workers", watch, on_end)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _quoted(path: str) -> str:
    """A path as a value that Hydra's grammar reads back unchanged."""
    if re.fullmatch(r"[\w/.:+-]+", path):
        return path
    return "'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'"
