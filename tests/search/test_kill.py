"""SIGKILL at random moments: nothing finished is lost or done twice; what was interrupted is done again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from himap.search.outcome import read_outcome
from himap.search.storage import open_storage

SCRIPT = Path(__file__).with_name("killed_worker.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


# A trial may die once in a group, once in a group of what died, and once alone.
MOST_STARTS = 3


def start(folder: Path, storage: str, trials: int, seconds: float, group: int = 1) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), str(folder), storage, str(trials), str(seconds), str(group)]
    return subprocess.Popen(command, env=ENVIRONMENT)


def n_results(folder: Path) -> int:
    return len(list(folder.glob("trials/*/result.json")))


def check(folder: Path, storage: str, trials: int, n_kills: int, group: int = 1) -> None:
    study = optuna.load_study(study_name="sweep", storage=open_storage(storage, folder))
    told = {trial.number: trial for trial in study.get_trials() if trial.state.is_finished()}
    outcome = read_outcome(folder)
    numbers = sorted(int(path.name) for path in (folder / "trials").iterdir())
    assert numbers == list(range(len(numbers))), "no gaps"
    assert sorted(told) == numbers, "finished on disk = told"
    for trial in outcome.trials:
        assert told[trial.number].values == [trial.point.accuracy, trial.point.share]
    assert len(outcome.trials) + len(outcome.failed) == trials
    assert all("its process died" in error for _, error in outcome.failed)
    begun = Counter(line.split()[1] for line in (folder / "evaluations.log").read_text().splitlines())
    assert sum(begun.values()) - len(begun) <= n_kills * group, "only an interrupted evaluation begins again"
    assert all(n <= MOST_STARTS for name, n in begun.items() if name.startswith("trials/"))
    assert len({trial.key for trial in outcome.trials}) == len(outcome.trials), "none twice"
    assert {trial.key for trial in outcome.front} <= outcome.heldout.keys()


@pytest.mark.parametrize(("storage", "group"), [("sqlite", 1), ("sqlite", 4), ("journal", 1)])
def test_killed_at_random_moments(storage: str, group: int, tmp_path: Path) -> None:
    rng = random.Random(5)
    trials, n_kills = 16, 0
    finished_before: dict[str, str] = {}
    for _ in range(5):
        process = start(tmp_path, storage, trials, 0.05, group)
        reached = n_results(tmp_path)
        deadline = time.monotonic() + 60
        # Import and set-up take seconds; a kill is to fall among the trials, or within a step of one.
        while n_results(tmp_path) <= reached and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.25))
        if process.poll() is None:
            n_kills += 1
            process.send_signal(signal.SIGKILL)
        process.wait()
        for path in tmp_path.glob("trials/*/result.json"):
            text = path.read_text()
            json.loads(text)
            assert finished_before.setdefault(path.parent.name, text) == text, (
                "a finished trial stays as it is"
            )
    assert n_kills >= 2
    assert start(tmp_path, storage, trials, 0.0, group).wait(timeout=120) == 0
    check(tmp_path, storage, trials, n_kills, group)


@pytest.mark.parametrize("group", [1, 4])
def test_two_workers_share_one_budget(group: int, tmp_path: Path) -> None:
    workers = [start(tmp_path, "sqlite", 14, 0.05, group) for _ in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    check(tmp_path, "sqlite", 14, 0, group)


@pytest.mark.parametrize("moment", ["claimed", "evaluated", "asked"])
def test_killed_between_two_steps(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The narrow moments that random kills seldom hit: die right there, in process, then go on."""
    import synthetic

    from himap.search import study, worker
    from himap.search.owner import Owner

    class Killed(BaseException):
        pass

    def die(*args: object, **kwargs: object) -> None:
        raise Killed

    monkeypatch.setattr(Owner, "me", classmethod(lambda cls: Owner("elsewhere", 1, "1")))
    step = {
        "asked": (worker.Worker, "_claim"),
        "claimed": (worker.Worker, "_work"),
        "evaluated": (worker.Worker, "_tell"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(*step, die)
        with pytest.raises(Killed):
            study.run(synthetic.sweep(trials=5, seeds=2), tmp_path, synthetic.evaluate)
    for beat in tmp_path.glob("trials/*/.heartbeat"):
        os.utime(beat, (0, 0))
    assert study.run(synthetic.sweep(trials=5, seeds=2), tmp_path, synthetic.evaluate)
    outcome = read_outcome(tmp_path)
    assert [trial.number for trial in outcome.trials] == [0, 1, 2, 3, 4]
    assert json.loads((tmp_path / "trials/0/trial.json").read_text())["attempt"] == (
        2 if moment == "claimed" else 1
    )


@pytest.mark.parametrize(("group", "n_deaths"), [(1, 2), (4, 3)], ids=["alone", "in-a-group"])
def test_a_trial_that_kills_every_process_is_given_up(group: int, n_deaths: int, tmp_path: Path) -> None:
    """Out of memory on each attempt, say: recorded as failed, and its fellows are evaluated."""
    script = tmp_path / "killer.py"
    script.write_text(
        "import os, signal, sys, synthetic\n"
        "from pathlib import Path\n"
        "from himap.search.study import run\n"
        "@synthetic.one_by_one\n"
        "def evaluate(strategy, split, folder):\n"
        "    if folder.name == '1' and folder.parent.name == 'trials':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return synthetic.answer(strategy, split, folder)\n"
        "run(synthetic.sweep(trials=4, seeds=2, group=int(sys.argv[2])), Path(sys.argv[1]), evaluate)\n"
    )
    environment = {**ENVIRONMENT, "PYTHONPATH": str(SCRIPT.parent)}
    command = [sys.executable, str(script), str(tmp_path / "sweep"), str(group)]
    codes = [subprocess.run(command, env=environment).returncode for _ in range(n_deaths + 1)]
    assert codes == [-signal.SIGKILL] * n_deaths + [0]
    outcome = read_outcome(tmp_path / "sweep")
    assert [(record.number, error) for record, error in outcome.failed] == [
        (1, f"its process died {n_deaths} times during this trial")
    ]
    assert len(outcome.trials) == 3
