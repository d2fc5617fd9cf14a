"""`himap sweep hardware=slurm` on a real Slurm: cancelled, requeued and preempted workers go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from himap.search.outcome import read_outcome
from himap.search.status import read_status

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif("HIMAP_TEST_SLURM" not in os.environ, reason="needs `make test-cluster`"),
]

SMALL = [
    "hardware=slurm",
    "hardware.device=cpu",
    "hardware.dtype=float32",
    "hardware.n_threads=1",
    "hardware.slurm.gpus=0",
    "hardware.slurm.cpus=1",
    "hardware.slurm.time_min=20",
    "hardware.slurm.workers=2",
    "search.storage=journal",
    "search.seeds=4",
    "search.group=2",
    "task.limit=96",
    "search.heldout_limit=16",
    "search.heldout_points=2",
    "tracking=none",
]


class Sweep:
    """A sweep in a folder, watched from a shell."""

    def __init__(self, folder: Path, trials: int) -> None:
        self.folder = folder
        self._words = [*SMALL, f"search.trials={trials}", f"hydra.run.dir={folder}"]
        self._window = folder.with_suffix(".txt")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self._window, "wb") as window:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "himap", "sweep", *self._words],
                stdout=window,
                stderr=subprocess.STDOUT,
            )

    def end(self) -> tuple[int, str]:
        assert self.process is not None
        code = self.process.wait(timeout=600)
        print(self.printed)
        return code, self.printed

    @property
    def printed(self) -> str:
        return self._window.read_text()

    @property
    def n_done(self) -> int:
        return len(list(self.folder.glob("trials/*/result.json")))

    @property
    def jobs(self) -> list[str]:
        path = self.folder / "workers" / "slurm" / "jobs.json"
        return list(json.loads(path.read_text())) if path.exists() else []

    def attempts(self) -> set[int]:
        paths = self.folder.glob("trials/*/trial.json")
        return {json.loads(path.read_text())["attempt"] for path in paths}

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 400
        while not condition():
            assert time.monotonic() < deadline, f"it never came; {self.n_done} done, {states()}"
            assert self.process is None or self.process.poll() is None, self.printed
            time.sleep(0.2)


def states() -> dict[str, str]:
    command = ["squeue", "--noheader", "--array", "--format=%i %T"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.fixture(autouse=True)
def empty_queue() -> Iterator[None]:
    yield
    slurm("scancel", "--user=root")
    deadline = time.monotonic() + 90
    while states() and time.monotonic() < deadline:
        time.sleep(0.5)


def test_cancelled_and_requeued_workers_go_on(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", trials=24)
    sweep.start()
    sweep.until(lambda: sweep.n_done >= 2 and list(states().values()) == ["RUNNING"] * 2)
    status = read_status(sweep.folder)
    assert 1 <= len(status.workers) <= 2 and all(worker.job for worker in status.workers)
    first, second = sweep.jobs
    slurm("scancel", first)
    done = sweep.n_done
    sweep.until(lambda: sweep.n_done >= done + 3)
    slurm("scontrol", "requeue", second)
    code, out = sweep.end()
    assert code == 0, out
    assert f"job {first} has ended" in out and "Pareto front" in out
    outcome = read_outcome(sweep.folder)
    assert len(outcome.trials) == 24 and not outcome.failed
    assert sweep.attempts() == {1}, "who is stopped in order gives its trial back"


def test_a_preempted_worker_is_queued_again(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", trials=14)
    sweep.start()
    sweep.until(lambda: sweep.n_done >= 2)
    before = sweep.n_done
    urgent = slurm(
        "sbatch",
        "--parsable",
        "--partition=high",
        "--cpus-per-task=4",
        "--output=/dev/null",
        "--wrap=sleep 3",
    ).strip()
    sweep.until(lambda: states().get(urgent) == "RUNNING")
    assert [states()[job] for job in sweep.jobs] == ["PENDING"] * 2, "they made room, and wait"
    code, out = sweep.end()
    assert code == 0, out
    outcome = read_outcome(sweep.folder)
    assert len(outcome.trials) == 14 > before and not outcome.failed
    assert sweep.attempts() == {1}


def test_a_window_that_is_closed_and_jobs_that_are_cancelled(tmp_path: Path) -> None:
    # More than two jobs evaluate while a window is opened again.
    sweep = Sweep(tmp_path / "sweep", trials=40)
    sweep.start()
    sweep.until(lambda: sweep.n_done >= 1)
    assert sweep.process is not None
    jobs = sweep.jobs
    # As Ctrl-C; a test in the background of a shell would not hear that one.
    sweep.process.send_signal(signal.SIGTERM)
    code, out = sweep.end()
    assert code == 130 and "the jobs go on without this window" in out
    assert sorted(states()) == sorted(jobs)
    sweep.start()
    sweep.until(lambda: "work in" in sweep.printed)
    assert sweep.jobs == jobs, "a second start watches those that run, and submits no more"
    slurm("scancel", jobs[0].partition("_")[0])
    code, out = sweep.end()
    assert code == 1 and "trials are left, and no worker lives" in out
    sweep.start()
    code, out = sweep.end()
    assert code == 0, out
    assert len(read_outcome(sweep.folder).trials) == 40
    assert not set(sweep.jobs) & set(jobs)


def test_what_slurm_refuses_is_one_line(tmp_path: Path) -> None:
    words = [*SMALL, "hardware.slurm.partition=nowhere", f"hydra.run.dir={tmp_path}"]
    command = [sys.executable, "-m", "himap", "sweep", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("hardware=slurm: sbatch refuses: ") and done.stderr.count("\n") == 1
    assert "invalid partition" in done.stderr
