"""What all tests share: one thread, no network, and a folder of one's own to run in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before torch is imported: tests are small, and other work shares the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
for name in ("WANDB_MODE", "WANDB_API_KEY", "HYDRA_FULL_ERROR", "HIMAP_CONF"):
    os.environ.pop(name, None)


@pytest.fixture
def himap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """The command line, run in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["himap"])
    yield lambda *words: _run(words, capsys)


class Outcome:
    """What a command left: its exit code, what it printed, and its lines on standard error."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err.splitlines()


Command = Callable[..., Outcome]


def _run(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> Outcome:
    import logging

    from himap.cli import main

    handlers = logging.getLogger().handlers[:]
    capsys.readouterr()
    try:
        main(list(words))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        # Hydra's logging holds on to the captured streams.
        logging.getLogger().handlers[:] = handlers
    return Outcome(code, *capsys.readouterr())
