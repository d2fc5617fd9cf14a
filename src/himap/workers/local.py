"""Worker processes on this machine: start them, watch them, and never leave one behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from himap.workers.signals import tethered

_N_LAST_LINES = 5
# A worker has this long to write down how far it is; what is lost after it is done again.
_GRACE_S = 30.0


@dataclass(frozen=True)
class Command:
    """A worker to start.

    Attributes:
        name: what messages and its log file call it; unique among those started together.
        words: the program and its arguments.
        environment: variables beside those of this process.
    """

    name: str
    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A worker that has ended.

    Attributes:
        code: its exit code; minus the signal's number where one killed it.
        log: everything that it printed.
    """

    name: str
    code: int
    log: Path

    def __str__(self) -> str:
        """One line: how it ended, and what it said last."""
        how = f"was killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"failed ({self.code})"
        last = " / ".join(last_lines(self.log))
        return f"worker {self.name} {how}: {last or 'it printed nothing'} (all of it in {self.log})."


def last_lines(log: Path) -> list[str]:
    """The last lines of a worker's output that are not empty."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()][-_N_LAST_LINES:]


def run_workers(
    commands: Sequence[Command],
    logs: Path,
    watch: Callable[[], None] = lambda: None,
    on_end: Callable[[Ended], None] = lambda ended: None,
    every_s: float = 1.0,
) -> list[Ended]:
    """Run all commands at the same time until each has ended; none is started again.

    Whatever ends the waiting (Ctrl-C, say) stops the workers as well: SIGTERM, 30 s, SIGKILL; a further
    Ctrl-C kills at once. `python -m himap` takes SIGTERM as Ctrl-C, and hears it when this process is killed.

    Args:
        logs: folder that takes `<name>.log`, output and errors of each; appended to.
        watch: called every `every_s` seconds while workers run, and once after the last.
        on_end: called as soon as a worker has ended, however it ended.

    Returns:
        how each ended, in the order of the commands.
    """
    logs.mkdir(parents=True, exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    ended: dict[int, Ended] = {}
    try:
        for command in commands:
            processes.append(_start(command, logs / f"{command.name}.log"))
        while len(ended) < len(processes):
            _wait_for_any([p for i, p in enumerate(processes) if i not in ended], every_s)
            for i, process in enumerate(processes):
                if i not in ended and (code := process.poll()) is not None:
                    name = commands[i].name
                    ended[i] = Ended(name, code, logs / f"{name}.log")
                    on_end(ended[i])
            watch()
    finally:
        _stop(processes)
    return [ended[i] for i in range(len(processes))]


def _start(command: Command, log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as file:
        return subprocess.Popen(
            list(command.words),
            env=tethered({**os.environ, **command.environment}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # A terminal's Ctrl-C reaches this process alone, which stops the workers once and in order.
            start_new_session=True,
        )


def _wait_for_any(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        time.sleep(min(0.05, seconds))


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _GRACE_S
    try:
        for process in running:
            process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        for process in running:
            if process.poll() is None:
                # With whatever it started itself: the session is its own.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
