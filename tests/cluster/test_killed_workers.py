"""Four workers, killed at random every few seconds, finish a study: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import optuna
import pytest

from himap.search.outcome import read_outcome
from himap.search.storage import open_storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).with_name("mortal_worker.py")
SYNTHETIC = Path(__file__).parents[1] / "search"
# Long enough for several kills, also where workers start at once.
N_WORKERS, N_TRIALS, SECONDS = 4, 60, 1.0


def storage_of(kind: str) -> str:
    if kind != "postgres":
        return kind
    url = os.environ.get("HIMAP_TEST_POSTGRES")
    if not url:
        pytest.skip("needs `make test-cluster`")
    return url


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Result -> the file that it is; another file in its place would be another evaluation."""
    paths = folder.glob("trials/*/result.json")
    return {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize("kind", ["postgres", "journal", "sqlite"])
def test_workers_killed_at_random(kind: str, tmp_path: Path) -> None:
    storage, name = storage_of(kind), f"killed-{uuid.uuid4().hex[:8]}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SYNTHETIC)}
    words = [sys.executable, str(SCRIPT), str(tmp_path), storage, name, str(N_TRIALS), str(SECONDS)]
    log = open(tmp_path / "workers.log", "ab")  # noqa: SIM115

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    rng = random.Random(7)
    workers = [start() for _ in range(N_WORKERS)]
    seen: dict[str, tuple[int, int]] = {}
    n_kills, complete = 0, False
    next_kill, deadline = time.monotonic() + 4, time.monotonic() + 600
    try:
        while not complete:
            assert time.monotonic() < deadline, (tmp_path / "workers.log").read_text()[-3000:]
            time.sleep(0.1)
            now = finished(tmp_path)
            changed = [number for number in seen if now.get(number) != seen[number]]
            assert not changed, "a finished trial stays as it is"
            seen = now
            if time.monotonic() > next_kill:
                next_kill = time.monotonic() + rng.uniform(1, 3)
                rng.choice([worker for worker in workers if worker.poll() is None]).kill()
                n_kills += 1
            for i, worker in enumerate(workers):
                code = worker.poll()
                assert code in (None, 0, 3, -signal.SIGKILL), (tmp_path / "workers.log").read_text()[-3000:]
                complete = complete or code == 0
                if code is not None and not complete:
                    workers[i] = start()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        log.close()

    outcome = read_outcome(tmp_path)
    print(f"{kind}: {len(outcome.trials)} trials, {n_kills} kills, {outcome.n_copies} known already")
    assert n_kills >= 5, "it must be killed to show something"
    assert not outcome.failed
    assert N_TRIALS <= len(outcome.trials) < N_TRIALS + N_WORKERS
    assert len({trial.key for trial in outcome.trials}) == len(outcome.trials), "none twice"
    study = optuna.load_study(study_name=name, storage=open_storage(storage, tmp_path))
    told = {trial.number: trial.values for trial in study.get_trials() if trial.state.is_finished()}
    started = sorted(int(path.name) for path in (tmp_path / "trials").iterdir())
    assert started == list(range(len(started))) == sorted(told), "what is on disk was told, and nothing else"
    for trial in outcome.trials:
        assert told[trial.number] == [trial.point.accuracy, trial.point.share]
    assert {trial.key for trial in outcome.front} <= outcome.heldout.keys()
