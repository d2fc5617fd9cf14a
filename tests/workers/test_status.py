"""What `himap sweep --status` says of a folder: trials, workers, rate, estimate, front; from files alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import synthetic

from himap.cli import main
from himap.errors import UserError
from himap.files import write_json
from himap.search.owner import Owner
from himap.search.presence import present, workers
from himap.search.status import read_status, trials_of
from himap.search.study import run
from himap.search.trials import Record, TrialStore

ELSEWHERE = Owner("node7", 4711, "1", "another boot")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("status") / "sweep"
    run(synthetic.sweep(trials=6, seeds=2, sampler="random"), folder, synthetic.evaluate)
    return folder


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Path:
    """A finished sweep whose trials took ten seconds each, one after another, until a minute ago."""
    folder = tmp_path / "sweep"
    shutil.copytree(finished, folder)
    study = folder / "study.json"
    study.write_text(study.read_text().replace('"trials": 6', '"trials": 10'))
    times(folder, [(10.0 * i, 10.0 * (i + 1)) for i in range(6)], before=time.time() - 120)
    return folder


def times(folder: Path, spans: list[tuple[float, float]], before: float) -> None:
    for number, (start, end) in enumerate(spans):
        for name, moment in (("trial.json", before + start), ("result.json", before + end)):
            os.utime(folder / "trials" / str(number) / name, (moment, moment))


def begin(folder: Path, number: int, owner: Owner, age: float) -> None:
    store = TrialStore(folder)
    store.start(Record(number, {"K1": 2, "R1": 0.5, "K2": 8, "R2": 0.5}, f"key{number}", 1, owner))
    os.utime(store.heartbeat(number), (time.time() - age, time.time() - age))


def test_trials_are_done_running_interrupted_or_to_do(sweep: Path) -> None:
    begin(sweep, 6, Owner.me(), 1)
    begin(sweep, 7, ELSEWHERE, 30)
    begin(sweep, 8, ELSEWHERE, 3000)
    TrialStore(sweep).fail(5, "no such head")
    (sweep / "trials" / "5" / "result.json").unlink()
    status = read_status(sweep)
    assert (status.n_done, status.n_failed, status.budget, status.n_left) == (5, 1, 10, 4)
    assert [one.record.number for one in status.running] == [6, 7]
    assert status.interrupted == [8]
    assert [one.record.number for one in trials_of(status, ELSEWHERE)] == [7]
    assert status.running[1].age_s == pytest.approx(30, abs=15)
    numbers = {trial.number for trial in status.front}
    assert numbers and numbers <= set(range(5))


def test_workers_are_those_that_beat(sweep: Path) -> None:
    assert workers(sweep) == []
    with present(sweep, "cuda:1"):
        (worker,) = workers(sweep)
        assert (worker.owner, worker.device) == (Owner.me(), "cuda:1") and worker.age_s < 60
        path = sweep / "workers" / "node7-4711.json"
        write_json(path, {"owner": asdict(ELSEWHERE), "device": "cuda:0", "job": "12"})
        assert {(w.device, w.job) for w in workers(sweep)} == {("cuda:0", "12"), ("cuda:1", "")}
        os.utime(path, (0, 0))
        assert workers(sweep) == [replace(worker, age_s=pytest.approx(0, abs=60))]
    assert workers(sweep) == []


def test_the_rate_is_that_of_the_last_trials(sweep: Path) -> None:
    assert read_status(sweep).per_hour == pytest.approx(360)
    # Two workers at the same time, in groups whose results come at once.
    spans = [(0.0, 20.0)] * 2 + [(20.0, 40.0)] * 4
    times(sweep, spans, before=time.time() - 120)
    assert read_status(sweep).per_hour == pytest.approx(540)


def test_a_pause_is_no_slow_trial(sweep: Path) -> None:
    spans = [(0.0, 10.0), (10.0, 20.0), *[(9000.0 + 10 * i, 9010.0 + 10 * i) for i in range(4)]]
    times(sweep, spans, before=time.time() - 20000)
    assert read_status(sweep).per_hour == pytest.approx(360)


def test_there_is_an_estimate_while_someone_works(sweep: Path) -> None:
    assert read_status(sweep).seconds_left is None
    begin(sweep, 6, Owner.me(), 1)
    assert read_status(sweep).seconds_left == pytest.approx(40)


def test_what_is_printed(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(sweep, 6, Owner.me(), 1)
    begin(sweep, 7, ELSEWHERE, 3000)
    with present(sweep, "cuda:1"):
        main(["sweep", "--status", str(sweep)])
        out = capsys.readouterr().out
        main(["sweep", "sweeps=shapes_pareto", f"hydra.run.dir={sweep}", "--status"])
    assert capsys.readouterr().out.splitlines()[1] == out.splitlines()[1]
    assert "trials: 6 done, 0 failed, 1 running, 3 to do, of 10" in out
    assert "workers: 1, 360 trials an hour lately, about 40 s left for the trials" in out
    assert re.search(rf"process {os.getpid()}, cuda:1: trial 6 for \d+ s, heartbeat \d+ s ago", out)
    assert "interrupted, for the next free worker: trial 7" in out
    assert "front so far" in out and "K1=" in out


@pytest.mark.parametrize("words", [[], ["a", "b"]])
def test_the_folder_must_be_given(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", "--status", *words])
    assert capsys.readouterr().err.startswith("himap sweep --status: needs the sweep's folder")
    with pytest.raises(UserError, match=r"nowhere: holds no sweep"):
        read_status(Path("nowhere"))


def test_neither_torch_nor_a_database_is_loaded(sweep: Path) -> None:
    (sweep / "study.db").write_bytes(b"locked, broken or gone")
    code = (
        "import sys; from himap.cli import main; main(['sweep', '--status', sys.argv[1]])\n"
        "print({'torch', 'optuna', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(sweep)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
