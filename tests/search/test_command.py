"""`himap sweep` on a real model of random weights: everything is written, resumable, and refused early."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import synthetic

from himap.cli import main
from himap.commands import record
from himap.commands.record import Recorder
from himap.config import TrackingConfig
from himap.report.sweep import write_report
from himap.search.outcome import read_outcome
from himap.search.study import run
from tests.tasks.releases import RELEASES, write_parquet

TINY = [
    "model.weights=random",
    "task.limit=4",
    "task.generation.max_new_tokens=2",
    "search.heldout_limit=6",
    "search.heldout_points=2",
    "search.seeds=2",
    "tracking=none",
]


@pytest.mark.timeout(600)
def test_a_sweep_on_a_real_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    main(["sweep", *TINY, "search.trials=3", f"hydra.run.dir={folder}"])
    assert "Pareto front" in capsys.readouterr().out
    outcome = read_outcome(folder)
    assert len(outcome.trials) == 3 and outcome.baselines.keys() == {"none", "fastv", "himap"}
    himap = outcome.baselines["himap"].result
    assert himap["kept"] == [[2, 72], [8, 18]] and himap["n_samples"] == 4
    assert all(there.result["n_samples"] == 6 for there in outcome.heldout.values())
    for name in ("config.yaml", "front.csv", "summary.md", "pareto.png", "study.db"):
        assert (folder / name).stat().st_size > 0
    assert not (folder / "wandb").exists()

    before = (folder / "trials" / "1" / "result.json").stat().st_mtime_ns
    main(["sweep", *TINY, "search.trials=4", f"hydra.run.dir={folder}"])
    assert len(read_outcome(folder).trials) == 4
    assert (folder / "trials" / "1" / "result.json").stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        main(["sweep", *TINY, "task.limit=5", f"hydra.run.dir={folder}"])
    assert "task.limit: 4 -> 5" in capsys.readouterr().err


def test_a_front_is_not_checked_on_samples_that_were_searched_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file, given as the data of either split."""
    release = RELEASES["textvqa"]
    write_parquet(replace(release, records=release.records[:2]), tmp_path / "data")
    path = (tmp_path / "data" / "validation-00000-of-00002.parquet").rename(tmp_path / "both.parquet")
    data = ["task=textvqa", "task.split=validation", "task.data.source=parquet", f"task.data.path={path}"]
    with pytest.raises(SystemExit):
        main(["sweep", *TINY, *data, "search.heldout_split=train", f"hydra.run.dir={tmp_path / 'sweep'}"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(
        "search.heldout_split=train: 1 of its samples are in task.split=validation, too, 30"
    )
    assert not (tmp_path / "sweep" / "study.db").exists()


def test_a_split_without_ground_truth_cannot_be_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["task=vqav2", "task.split=testdev", "task.data.source=parquet", f"task.data.path={tmp_path}"]
    with pytest.raises(SystemExit):
        main(["sweep", *TINY, *data, "search.heldout_split=val", f"hydra.run.dir={tmp_path / 'sweep'}"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("task.split=testdev: its ground truth is on a server")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.axes.K2.high=12", "search.axes.K2.high=12: must be below the model's 12 layers"),
        ("search.axes.R2.high=1.0", "search.axes.R2.high=1.0: must be in [0, 1)"),
        ("search.sampler=tp", "search.sampler=tp: unknown; did you mean tpe?"),
        ("search.axes.C1=[img2text]", "search.axes.C1=img2text: unknown; did you mean img2txt?"),
        ("pruning=fastv", "pruning=fastv: a sweep searches two stages"),
        ("task.split=heldout", "search.heldout_split=heldout: must differ from task.split"),
        (
            "search.baselines.himap.stages.deep.layer=12",
            "search.baselines.himap.stages.deep.layer=12: must be",
        ),
        ("sweeps=shapes_paretto", "sweeps=shapes_paretto: unknown; did you mean shapes_pareto?"),
    ],
    ids=lambda text: text.split("=")[0],
)
def test_wrong_overrides_end_at_once(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sweep", override, f"hydra.run.dir={tmp_path / 'sweep'}"])
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


class FakeTracker:
    """Remembers what was recorded, and may be broken."""

    runs: ClassVar[list[dict[str, Any]]] = []
    broken = False

    def start(self, **settings: Any) -> None:
        if FakeTracker.broken:
            raise ConnectionError("no space left")
        self.run = settings

    def log(self, numbers: dict[str, Any]) -> None:
        self.run["numbers"] = numbers

    def log_table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        self.run["rows"] = rows

    def log_scatter(self, name: str, columns: list[str], rows: list[list[Any]], x: str, y: str) -> None:
        assert {x, y} <= set(columns)

    def log_image(self, name: str, path: Path) -> None:
        assert path.exists()

    def finish(self, *, failed: bool = False) -> None:
        FakeTracker.runs.append(self.run)


def test_every_trial_is_recorded_once_also_after_a_broken_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record.tracking, "create", lambda *_: FakeTracker())
    monkeypatch.setattr(FakeTracker, "runs", [])
    run(synthetic.sweep(trials=4, seeds=2), tmp_path, synthetic.evaluate)
    comparison = write_report(tmp_path)
    tracking = TrackingConfig("offline")
    monkeypatch.setattr(FakeTracker, "broken", True)
    with Recorder(tracking, tmp_path, {}, "mine"):
        pass
    assert FakeTracker.runs == []
    monkeypatch.setattr(FakeTracker, "broken", False)
    for _ in range(2):
        with Recorder(tracking, tmp_path, {}, "mine") as recorder:
            pass
    assert sorted(r["name"] for r in FakeTracker.runs) == [f"trial-{n}" for n in range(4)]
    assert {r["group"] for r in FakeTracker.runs} == {"mine"}
    numbers = {r["name"]: r["numbers"] for r in FakeTracker.runs}
    for trial in comparison.outcome.trials:
        found = numbers[f"trial-{trial.number}"]
        assert found["metrics/accuracy"] == trial.point.accuracy
        assert found["flops/paper_share"] == trial.point.share
        assert found["params/K1"] == trial.params["K1"]
    with Recorder(tracking, tmp_path, {}, "mine") as recorder:
        recorder.record_study(comparison)
    assert FakeTracker.runs[-1]["job_type"] == "study" and len(FakeTracker.runs[-1]["rows"]) == 4


def test_two_workers_record_a_trial_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one starts while the first has trials that it is recording or is going to record."""
    recording, go_on = threading.Event(), threading.Event()

    class Slow(FakeTracker):
        def finish(self, *, failed: bool = False) -> None:
            recording.set()
            assert go_on.wait(30)
            super().finish(failed=failed)

    monkeypatch.setattr(record.tracking, "create", lambda *_: Slow())
    monkeypatch.setattr(FakeTracker, "runs", [])
    run(synthetic.sweep(trials=4, seeds=2), tmp_path, synthetic.evaluate)
    tracking = TrackingConfig("offline")
    with Recorder(tracking, tmp_path, {}, "mine"):
        assert recording.wait(30)
        with Recorder(tracking, tmp_path, {}, "mine"):
            go_on.set()
    assert sorted(r["name"] for r in FakeTracker.runs) == [f"trial-{n}" for n in range(4)]


def test_offline_runs_are_read_back_with_wandb(tmp_path: Path) -> None:
    run(synthetic.sweep(trials=1, seeds=0), tmp_path, synthetic.evaluate)
    comparison = write_report(tmp_path)
    with Recorder(TrackingConfig("offline"), tmp_path, {"model": "synthetic"}, "mine") as recorder:
        recorder.record_study(comparison)
    wandb = Path(sys.executable).with_name("wandb")
    summaries = []
    for folder in (tmp_path / "wandb").glob("offline-run-*"):
        command = [wandb, "leet", "inspect", "--summary", "--json", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        summaries.append(json.loads(done.stdout)["summary"])
    assert len(summaries) == 2
    study, trial = sorted(summaries, key=lambda summary: "params/K1" in summary)
    found = comparison.outcome.trials[0]
    assert trial["metrics/accuracy"] == pytest.approx(found.point.accuracy)
    assert trial["params/K1"] == found.params["K1"]
    assert study["n_trials"] == 1 and study["hypervolume"] == pytest.approx(comparison.hypervolume)
