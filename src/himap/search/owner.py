"""Who works on a trial, whether that process still lives, and who goes first."""

from __future__ import annotations

import functools
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from himap.files import in_turn

_BEAT_S = 15.0
# A missed beat is no death: a network disk may stall for a while.
DEAD_AFTER_S = 180.0


@dataclass(frozen=True)
class Owner:
    """A process, as others can find out whether it still lives.

    Attributes:
        host: where it runs.
        pid: its id there.
        started: when it started, in clock ticks since boot; ids are given again after a death.
        space: within which the id means something, see `_space`; empty in folders of older versions.
    """

    host: str
    pid: int
    started: str
    space: str = ""

    @classmethod
    def me(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()), _space())

    def alive(self, heartbeat: Path) -> bool:
        """Whether the process lives: it beat lately and, where that can be looked up, is still there."""
        age = heartbeat_age(heartbeat)
        if self.space != _space():
            return age is not None and age < DEAD_AFTER_S
        if not _start_of(self.pid) == self.started != "":
            return False
        # Without a heartbeat it has ended this work and is about to say so.
        # While a machine sleeps, nobody on it beats.
        return age is None or age - _slept() < DEAD_AFTER_S


def heartbeat_age(heartbeat: Path) -> float | None:
    """Seconds since the last beat by the clock of its file system; None where there is no heartbeat.

    The clocks of two hosts may differ by more than a death takes; files on one disk share theirs.
    """
    try:
        beat = heartbeat.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        with tempfile.TemporaryFile(dir=heartbeat.parent) as file:
            # Written, because a network disk may give a file that is only opened this host's time.
            file.write(b"now")
            file.flush()
            return os.fstat(file.fileno()).st_mtime - beat
    except OSError:  # a folder that may only be read
        return time.time() - beat


@functools.cache
def _space() -> str:
    """What shares process ids with this process: one boot of one machine, and a container's namespace on it.

    Containers may share a host's name and not its processes; hosts made from one image may share a name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # macOS
        return socket.gethostname()


def _slept() -> float:
    """Seconds that this machine was suspended since it started."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if clock is None else max(0.0, time.clock_gettime(clock) - time.monotonic())


def _start_of(pid: int) -> str:
    """When a process of this host started, in clock ticks since boot; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        return _start_without_proc(pid)
    # The command's name may hold spaces and brackets; the fields after it do not. A zombie is dead.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _start_without_proc(pid: int) -> str:
    """Systems without /proc (macOS): whether the process is there at all."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"


@contextmanager
def heartbeat(path: Path) -> Iterator[None]:
    """Touch `path` now and every some seconds, until the work inside ends."""
    stop = threading.Event()
    path.touch()

    def beat() -> None:
        while not stop.wait(_BEAT_S):
            # A network disk may fail for a while; who then never beat again would count as dead.
            with suppress(OSError):
                path.touch()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other workers out of a folder; a killed holder lets go by itself.

    Raises:
        UserError: the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with in_turn(folder):
        yield
