"""How a worker is told to stop, and that it does not outlive whoever started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

# `kill`, `scancel` and a preempting scheduler send the first, `sbatch --signal=USR1@60` the second.
STOPS = (signal.SIGTERM, signal.SIGUSR1)
_PARENT = "HIMAP_WORKER_OF"
_PR_SET_PDEATHSIG = 1


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end the work inside as Ctrl-C does: with a KeyboardInterrupt, once.

    Does nothing outside the main thread, which is the only one that hears signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        # Schedulers repeat themselves; a second one must not break the tidying up after the first.
        for each in STOPS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, stop) for each in STOPS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def tether() -> None:
    """In a worker: be stopped by SIGTERM when the process that started it dies (Linux; elsewhere nothing)."""
    parent = os.environ.pop(_PARENT, None)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def tethered(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child of this process that is to call `tether`."""
    return {**environment, _PARENT: str(os.getpid())}
