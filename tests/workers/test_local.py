"""Workers are started together, reported when they die, and never outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from himap.workers import Command, Ended, interruptible, run_workers

# A worker as himap's own: told to stop, it says so and leaves a file.
OBEDIENT = """
import sys, time
from pathlib import Path
from himap.workers import interruptible, tether
tether()
folder = Path(sys.argv[1])
try:
    with interruptible():
        (folder / "started").touch()
        time.sleep(60)
except KeyboardInterrupt:
    (folder / "stopped").touch()
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up as", os.getpid(), flush=True)
time.sleep(60)
"""


def python(name: str, code: str, *words: str, **environment: str) -> Command:
    return Command(name, [sys.executable, "-c", code, *words], environment)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_each_runs_with_its_own_words_and_variables(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1], os.environ['MINE']); sys.exit(int(sys.argv[1]))"
    heard: list[Ended] = []
    commands = [python("a", code, "0", MINE="x"), python("b", code, "3", MINE="y")]
    ended = run_workers(commands, tmp_path / "logs", on_end=heard.append)
    assert [(e.name, e.code, e.log.read_text()) for e in ended] == [("a", 0, "0 x\n"), ("b", 3, "3 y\n")]
    assert {e.name for e in heard} == {"a", "b"} and len(heard) == 2


def test_they_run_at_the_same_time(tmp_path: Path) -> None:
    # Each waits for the file that the other one writes.
    code = (
        "import sys, time\nfrom pathlib import Path\nPath(sys.argv[1]).touch()\n"
        "while not Path(sys.argv[2]).exists(): time.sleep(0.01)"
    )
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    ended = run_workers([python("one", code, one, two), python("two", code, two, one)], tmp_path)
    assert [e.code for e in ended] == [0, 0]


def test_a_death_is_one_line_with_the_last_words(tmp_path: Path) -> None:
    killed = "import os, signal; print('loading', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    failed = "import sys; print('\\n'.join(f'line {i}' for i in range(9))); sys.exit(1)"
    first, second, silent = run_workers(
        [python("0", killed), python("1", failed), python("2", "raise SystemExit(2)")], tmp_path
    )
    assert str(first) == f"worker 0 was killed by SIGKILL: loading (all of it in {tmp_path / '0.log'})."
    assert "failed (1): line 4 / line 5 / line 6 / line 7 / line 8 " in str(second)
    assert "failed (2): it printed nothing" in str(silent)


def test_whatever_ends_the_waiting_stops_the_workers(tmp_path: Path) -> None:
    def watch() -> None:
        if (tmp_path / "started").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_workers([python("0", OBEDIENT, str(tmp_path))], tmp_path, watch, every_s=0.1)
    assert (tmp_path / "stopped").exists(), "it had the time to end in order"


def test_who_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("himap.workers.local._GRACE_S", 0.2)
    command = python("0", STUBBORN)

    def watch() -> None:
        if "up as" in (tmp_path / "0.log").read_text():
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        run_workers([command], tmp_path, watch, every_s=0.1)
    process = int((tmp_path / "0.log").read_text().split()[-1])
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
def test_workers_stop_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from himap.workers import Command, run_workers\n"
        f"run_workers([Command('0', [sys.executable, '-c', {OBEDIENT!r}, sys.argv[1]])], Path(sys.argv[1]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    until((tmp_path / "started").exists)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until((tmp_path / "stopped").exists)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_interrupts_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    tidied = False
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            tidied = True
    assert tidied, "a second one must not break the tidying up"
    assert signal.getsignal(number) == before
