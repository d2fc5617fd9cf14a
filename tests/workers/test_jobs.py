"""What is handed to Slurm, and how a job stops and goes on; Slurm itself is stood in for by small scripts."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from himap.config import ContainerConfig, SlurmConfig
from himap.errors import ConfigError, UserError
from himap.workers.slurm import Job, in_queue, logs, parameters, submit

pytest.importorskip("submitit")

SBATCH = """#!/bin/sh
cp "$1" "$FAKE_SLURM/script-$(ls "$FAKE_SLURM" | grep -c script)"
if [ -e "$FAKE_SLURM/refuse" ]; then echo "sbatch: error: $(cat "$FAKE_SLURM/refuse")" >&2; exit 1; fi
echo "Submitted batch job 7"
"""
SQUEUE = """#!/bin/sh
cat "$FAKE_SLURM/queue"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with scripts in Slurm's place; `queue` is what squeue says, `refuse` why sbatch refuses."""
    place = tmp_path / "slurm"
    place.mkdir()
    (place / "queue").touch()
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "srun": "#!/bin/sh\n"}.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    monkeypatch.setenv("FAKE_SLURM", str(place))
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    return place


def pickled(folder: Path) -> list[Any]:
    from submitit.core.utils import DelayedSubmission

    return [DelayedSubmission.load(path).function.words for path in sorted(folder.glob("*.pkl"))]


def test_the_jobs_get_what_was_asked_for(slurm: Path, tmp_path: Path) -> None:
    config = SlurmConfig(
        workers=3,
        partition="gpu",
        time_min=90,
        gpus=2,
        cpus=6,
        memory_gib=1.5,
        signal_s=45,
        options={"account": "mine"},
        setup=["module load cuda"],
    )
    assert submit(config, ["-m", "himap"], tmp_path / "jobs", "himap-front") == ["7_0", "7_1", "7_2"]
    script = (slurm / "script-0").read_text()
    wanted = "partition=gpu time=90 gpus-per-node=2 cpus-per-task=6 mem=1536M signal=USR2@45 account=mine"
    for option in [*wanted.split(), "job-name=himap-front", "requeue", "array=0-2%3"]:
        assert f"#SBATCH --{option}\n" in script
    assert script.index("module load cuda") < script.index("srun")
    assert pickled(tmp_path / "jobs") == [[sys.executable, "-m", "himap"]] * 3


def test_a_second_start_fills_up_to_the_number_of_workers(slurm: Path, tmp_path: Path) -> None:
    words = ["-m", "himap"]
    submit(SlurmConfig(workers=2), words, tmp_path, "a")
    (slurm / "queue").write_text("7_0 RUNNING\n7_1 PENDING\n")
    assert submit(SlurmConfig(workers=2), words, tmp_path, "a") == ["7_0", "7_1"]
    assert not (slurm / "script-1").exists()
    (slurm / "queue").write_text("7_1 RUNNING\n")
    assert submit(SlurmConfig(workers=2), words, tmp_path, "a") == ["7_1", "7"]
    assert "array" not in (slurm / "script-1").read_text(), "one more, not two"


def test_apptainer_runs_the_worker_and_pyxis_the_whole_job(slurm: Path, tmp_path: Path) -> None:
    apptainer = ContainerConfig("himap.sif", mounts=["/data:/data"], python="python3.12")
    submit(SlurmConfig(workers=2, container=apptainer), ["-m", "himap"], tmp_path / "a", "a")
    words = ["apptainer", "exec", "--nv", "--bind", "/data:/data", "himap.sif", "python3.12", "-m", "himap"]
    assert pickled(tmp_path / "a") == [words] * 2
    assert f"{sys.executable} -u -m submitit" in (slurm / "script-0").read_text()

    pyxis = ContainerConfig("lab/himap", runtime="pyxis", mounts=["/a:/a", "/b:/b"])
    submit(SlurmConfig(workers=2, container=pyxis), ["-m", "himap"], tmp_path / "b", "b")
    script = (slurm / "script-1").read_text()
    assert "--container-image=lab/himap --container-mounts=/a:/a,/b:/b python3 -u -m submitit" in script
    assert pickled(tmp_path / "b") == [["python3", "-m", "himap"]] * 2


def test_no_gpu_and_no_memory_are_left_to_the_partition() -> None:
    assert not {"gpus_per_node", "mem", "partition", "setup"} & parameters(SlurmConfig(gpus=0), "a").keys()


def test_the_queue_is_read_and_a_job_that_is_gone_is_no_error(slurm: Path) -> None:
    (slurm / "queue").write_text("7_0 RUNNING\n7_2 COMPLETING\n8 PENDING\n")
    assert in_queue(["7_0", "7_1"]) == {"7_0": "RUNNING"}
    assert in_queue([]) == {}
    (slurm / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1\n"
    )
    assert in_queue(["7_0"]) == {}
    (slurm / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    with pytest.raises(
        UserError, match=r"^hardware=slurm: squeue: Unable to contact .* \(is the cluster up\?\)"
    ):
        in_queue(["7_0"])


def test_what_is_missing_or_refused_is_one_line(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (slurm / "refuse").write_text("invalid account")
    with pytest.raises(UserError, match=r"^hardware=slurm: sbatch refuses: .*invalid account") as caught:
        submit(SlurmConfig(), [], tmp_path, "a")
    assert "\n" not in str(caught.value) and capsys.readouterr().err == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not found here"):
        submit(SlurmConfig(), [], tmp_path, "a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "hardware.slurm.workers=0"),
        ({"time_min": 0}, "hardware.slurm.time_min=0"),
        ({"gpus": -1}, "hardware.slurm.gpus=-1"),
        ({"time_min": 1, "signal_s": 60}, "hardware.slurm.signal_s=60"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        SlurmConfig(**settings)


def test_a_job_stops_its_worker_in_order_before_it_is_queued_again(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time; from pathlib import Path\n"
        "signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[1], 'stopped').touch(), sys.exit(0)))\n"
        "Path(sys.argv[1], 'up').touch(); time.sleep(60)"
    )
    job = Job([sys.executable, "-c", code, str(tmp_path)])
    running = threading.Thread(target=job)
    running.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    again = job.checkpoint()
    running.join(30)
    assert not running.is_alive() and (tmp_path / "stopped").exists()
    assert again.function.words == job.words


def test_a_worker_that_fails_fails_its_job(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="3"):
        Job([sys.executable, "-c", "raise SystemExit(3)"])()
    with pytest.raises(SystemExit, match="137"):
        Job([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])()
    Job([sys.executable, "-c", ""])()
    assert logs(tmp_path, "7_0") == []
    (tmp_path / "7_0_0_log.err").write_text("a\n\nb\n")
    assert logs(tmp_path, "7_0") == ["a", "b"]
