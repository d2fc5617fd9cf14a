"""Tracking: what W&B's own reader finds, what happens without an account, and that `none` is nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from himap import tracking
from himap.config import TrackingConfig
from himap.result import Result

OFFLINE = TrackingConfig("offline", group="study", tags=["a", "b"])
RESULT = Result(
    model="tiny",
    pruning="himap",
    task="questions",
    split="search",
    metrics={"accuracy": 93.5, "f1": None, "primary": "accuracy"},
    ci95=[91.25, 95.0],
    kept=[[2, 288], [8, 72.5]],
    flops={"paper_tflops": 0.735, "paper_share": 0.246, "prefill_tflops": 3.137, "prefill_share": 0.351},
    n_samples=200,
    samples_per_second=12.5,
    config_sha256="0",
    environment={},
)


def inspect(folder: Path) -> dict[str, Any]:
    """An offline run, read by W&B's own tool."""
    command = [
        str(Path(sys.executable).parent / "wandb"),
        "leet",
        "inspect",
        "--summary",
        "--json",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    content: dict[str, Any] = json.loads(done.stdout)
    return content


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one offline run."""
    folder = tmp_path_factory.mktemp("run")
    picture = folder / "picture.png"
    Image.new("RGB", (4, 4)).save(picture)
    tracker = tracking.create(OFFLINE, folder)
    settings = {"pruning": {"name": "himap"}, "storage": "postgresql://me:secret@host/name"}
    tracker.start(name="trial 3", group="study", config=settings, job_type="trial")
    tracker.log(tracking.numbers(RESULT))
    tracker.log_table("trials", ["trial", "accuracy"], [[0, 90.0], [1, 93.5]])
    tracker.log_scatter("front", ["share", "accuracy"], [[0.5, 90.0], [0.2, 93.5]], "share", "accuracy")
    tracker.log_image("pareto", picture)
    tracker.finish()
    return folder


def test_wandbs_own_reader_finds_the_numbers(recorded: Path) -> None:
    (run,) = (recorded / "wandb").glob("offline-run-*")
    content = inspect(run)
    summary = content["summary"]
    assert summary["metrics/accuracy"] == 93.5
    assert summary["metrics/primary"] == "accuracy"
    assert (summary["ci95/low"], summary["ci95/high"]) == (91.25, 95.0)
    assert (summary["flops/paper_share"], summary["flops/prefill_tflops"]) == (0.246, 3.137)
    assert (summary["kept/layer_2"], summary["kept/layer_8"]) == (288, 72.5)
    assert summary["samples_per_second"] == 12.5
    assert summary["trials"]["nrows"] == 2
    assert summary["pareto"]["_type"] == "image-file"
    assert (content["project"], content["name"]) == ("himap", "trial 3")
    assert content["config"]["pruning"] == {"name": "himap"}
    assert content["state"] == "finished"


def test_a_run_keeps_no_secret(recorded: Path) -> None:
    files = [path for path in recorded.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(b"postgresql://me:***@host" in path.read_bytes() for path in files)
    assert not any(b"secret" in path.read_bytes() for path in files)


def test_one_tracker_records_several_runs_and_two_do_not_mix(tmp_path: Path) -> None:
    first, second = (tracking.create(OFFLINE, tmp_path / name) for name in ("first", "second"))
    for number, tracker in enumerate((first, second)):
        tracker.start(name=f"run {number}", group=None, config={}, job_type="trial")
    first.log({"number": 1})
    second.log({"number": 2})
    first.finish()
    first.start(name="again", group=None, config={}, job_type="trial")
    first.log({"number": 3})
    first.finish()
    second.finish(failed=True)
    runs = [inspect(run) for run in (tmp_path / "first" / "wandb").glob("offline-run-*")]
    assert {run["name"]: run["summary"]["number"] for run in runs} == {"run 0": 1, "again": 3}
    (other,) = (tmp_path / "second" / "wandb").glob("offline-run-*")
    assert inspect(other)["summary"]["number"] == 2
    assert inspect(other)["exit_code"] == 1


def test_none_writes_nothing_and_imports_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from himap import tracking\nfrom himap.config import TrackingConfig\n"
        "t = tracking.create(TrackingConfig('none'), Path('here'))\n"
        "t.start(name='a', group=None, config={}, job_type='b')\nt.log({'a': 1})\n"
        "t.log_table('a', ['b'], [[1]])\nt.log_image('a', Path('b'))\n"
        "t.log_scatter('a', ['b'], [[1]], 'b', 'b')\nt.finish()\n"
        "assert 'wandb' not in sys.modules and not list(Path('.').iterdir())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("import sys; sys.exit(1)", "does not know this account"),
        ("import time; time.sleep(60)", "does not answer within 1 s"),
    ],
)
def test_online_without_an_answer_falls_back_to_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, probe: str, reason: str
) -> None:
    monkeypatch.setattr(tracking, "_PROBE", probe)
    tracking._answers.cache_clear()
    online = replace(OFFLINE, name="online", init_timeout_s=1.0)
    tracker = tracking.create(online, tmp_path)
    tracking.create(online, tmp_path)
    tracking._answers.cache_clear()
    expected = f"tracking=online: W&B {reason}; recording offline (`wandb sync` uploads it later)"
    assert [record.getMessage() for record in caplog.records] == [expected], "said once, not for every run"
    tracker.start(name="a", group=None, config={}, job_type="evaluate")
    tracker.log({"number": 1})
    tracker.finish()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert inspect(run)["summary"]["number"] == 1


def test_an_unreachable_account_with_a_key_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    tracking._answers.cache_clear()
    assert not tracking._answers(3.0)
    tracking._answers.cache_clear()
