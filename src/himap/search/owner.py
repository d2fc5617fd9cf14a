"""Who works on a trial, whether that process still lives, and who goes first."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_BEAT_S = 15.0
# A missed beat is no death: a network disk may stall for a while.
_DEAD_AFTER_S = 180.0


@dataclass(frozen=True)
class Owner:
    """A process: its host, its id there, and when it started (ids are given again after a death)."""

    host: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()))

    def alive(self, heartbeat: Path) -> bool:
        """Whether the process lives: looked up on its own host, by the age of its heartbeat from another."""
        if self.host == socket.gethostname():
            return _start_of(self.pid) == self.started != ""
        try:
            return time.time() - heartbeat.stat().st_mtime < _DEAD_AFTER_S
        except FileNotFoundError:
            return False


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
    """Touch `path` now and every some seconds, for workers on other hosts."""
    stop = threading.Event()
    path.touch()

    def beat() -> None:
        while not stop.wait(_BEAT_S):
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
    """Keep other workers out of a folder; a killed holder lets go by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
