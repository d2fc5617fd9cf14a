"""A sweep by several workers of one machine: configured as the parent, stopped, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic

from himap.cli import main
from himap.commands import sweep_workers
from himap.commands.sweep import SweepConfig
from himap.commands.workers import himap_words
from himap.config import EvaluateConfig, HardwareConfig
from himap.config.compose import compose
from himap.errors import UserError
from himap.hardware import devices, prepare
from himap.search.outcome import read_outcome
from himap.search.study import run
from himap.workers import Ended

TINY = [
    "model.weights=random",
    "task.limit=4",
    "task.generation.max_new_tokens=2",
    "search.heldout_limit=6",
    "search.heldout_points=2",
    "search.seeds=2",
    "search.group=1",
    "tracking=none",
    "hardware.devices=[cpu,cpu]",
]


def test_a_worker_is_configured_as_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "my options"
    (mine / "pruning").mkdir(parents=True)
    (mine / "pruning" / "gentle.yaml").write_text(
        "name: gentle\nstages:\n  shallow: {layer: 4, drop: 0.3, criterion: img2txt}\n"
        "  deep: {layer: 10, drop: 0.5, criterion: img2img}\n"
    )
    folder = tmp_path / "it's, a=[sweep] here"
    seen: list[Any] = []

    def instead(sweep: Any, hardware: HardwareConfig, where: Path) -> None:
        changes = ["hardware.devices=null", "hardware.device=cpu"]
        seen.append((hardware, where, himap_words("sweep", where, changes)))

    monkeypatch.setattr(sweep_workers, "run", instead)
    typed = [
        "pruning=gentle",
        "task.limit=7",
        "+search.baselines.none.stages={}",
        "hardware.devices=[cpu,cpu]",
    ]
    quoted = str(folder).replace("'", "\\'")
    main(["sweep", "--config-dir", str(mine), *typed, f"hydra.run.dir='{quoted}'"])
    ((hardware, where, words),) = seen
    assert hardware.devices == ["cpu", "cpu"] and where == folder
    assert words[:3] == ["-m", "himap", "sweep"] and "hardware.devices=[cpu,cpu]" not in words

    again: list[Any] = []
    monkeypatch.setattr("himap.commands.sweep._work", lambda config, sweep, at: again.append((config, at)))
    main(words[2:])
    ((config, at),) = again
    parent = compose("sweep", SweepConfig, typed, mine)
    parent.hardware = replace(parent.hardware, devices=None)
    assert config == parent and at == folder


def test_devices_are_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    hardware = compose("evaluate", EvaluateConfig, ["hardware=multi_gpu"]).hardware
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"hardware\.devices=auto: torch sees no CUDA device"):
        devices(hardware)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices(hardware) == ["cuda:0", "cuda:1"]
    assert devices(replace(hardware, devices=["cpu", "cuda:1"])) == ["cpu", "cuda:1"]
    with pytest.raises(UserError, match=r"hardware\.devices=cuda:2: torch sees 2 CUDA devices"):
        devices(replace(hardware, devices=["cuda:0", "cuda:2"]))
    with pytest.raises(UserError, match=r"hardware\.devices: this verb works in one process"):
        prepare(hardware)


def test_sqlite_is_no_storage_for_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", "hardware=slurm", f"hydra.run.dir={tmp_path}"])
    assert capsys.readouterr().err.startswith("search.storage=sqlite: is for one machine")


def ended(folder: Path, code: int, text: str) -> Ended:
    log = folder / "0-cpu.log"
    log.write_text(text)
    return Ended("0-cpu", code, log)


def finish(monkeypatch: pytest.MonkeyPatch, one: Ended, trials: int, folder: Path) -> None:
    """A sweep whose single worker evaluates some trials and ends so."""

    def instead(verb: str, hardware: HardwareConfig, where: Path, watch: Any, on_end: Any) -> list[Ended]:
        if trials:
            sweep = synthetic.sweep(trials=trials, seeds=0, sampler="random", heldout_points=0)
            run(sweep, where, synthetic.evaluate)
        watch()
        on_end(one)
        return [one]

    monkeypatch.setattr(sweep_workers, "run_here", instead)
    hardware = compose("evaluate", EvaluateConfig, ["hardware.devices=[cpu]"]).hardware
    sweep_workers.run(
        synthetic.sweep(trials=4, seeds=0, sampler="random", heldout_points=0), hardware, folder
    )


def test_workers_that_cannot_begin_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ended(tmp_path, 1, "model.path=/nowhere: holds no model\n")
    with pytest.raises(UserError, match=r"worker 0-cpu failed \(1\): model\.path=/nowhere: holds no model"):
        finish(monkeypatch, one, 0, tmp_path / "sweep")


def test_what_is_left_after_a_death_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ended(tmp_path, -9, "CUDA out of memory")
    folder = tmp_path / "sweep"
    monkeypatch.setattr(sweep_workers, "read_status", told_budget(4))
    # Drawing takes longer than all the rest.
    monkeypatch.setattr("himap.report.sweep.write_report", lambda where: where)
    monkeypatch.setattr("himap.report.table.print_front", lambda where: print("front of", where.name))
    with pytest.raises(UserError, match="2 of 4 trials are left, and no worker lives"):
        finish(monkeypatch, one, 2, folder)
    shown = capsys.readouterr()
    assert "was killed by SIGKILL: CUDA out of memory" in shown.err and "front of sweep" in shown.out


def told_budget(trials: int) -> Any:
    from himap.search.status import read_status

    return lambda folder: replace(read_status(folder), budget=trials)


def n_done(folder: Path) -> int:
    return len(list(folder.glob("trials/*/result.json")))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    words = [*TINY, "search.trials=200", f"hydra.run.dir={folder}"]
    command = [sys.executable, "-m", "himap", "sweep", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while n_done(folder) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    owners = {json.loads(path.read_text())["owner"]["pid"] for path in folder.glob("workers/*.json")}
    assert len(owners) == 2
    # Python started in the background of a shell ignores Ctrl-C; SIGTERM is heard in any case.
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"this goes on from here: himap sweep {' '.join(TINY[:3])}" in err and str(folder) in err
    for pid in owners:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    n_before = n_done(folder)
    assert n_before < 200
    words[-2] = f"search.trials={n_before + 4}"
    main(["sweep", *words])
    outcome = read_outcome(folder)
    assert len(outcome.trials) == n_before + 4 and not outcome.failed and outcome.heldout
    attempts = {json.loads(path.read_text())["attempt"] for path in folder.glob("trials/*/trial.json")}
    assert attempts == {1}, "who is stopped in order gives its trial back"
