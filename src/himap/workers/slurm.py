"""Workers as jobs of a Slurm cluster: submitted through submitit, queued again after a preemption."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himap.config import ContainerConfig, SlurmConfig
from himap.errors import UserError
from himap.files import write_json
from himap.workers.local import last_lines

# Within the 30 s that Slurm leaves between SIGTERM and SIGKILL.
_GRACE_S = 25.0
_JOBS = "jobs.json"


@dataclass
class Job:
    """What a job runs: a command, stopped in order and queued again when the cluster asks for it.

    Submitit calls `checkpoint` shortly before a time limit and, where the cluster is set so, on a preemption.
    """

    words: list[str]

    def __call__(self) -> None:
        self._process = subprocess.Popen(self.words)
        # Not wait(): a signal's handler that waits, too, would never get its turn.
        while (code := self._process.poll()) is None:
            time.sleep(0.2)
        if code:
            # The worker has said why; submitit would add a stack trace of its own to an exception.
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        self._process.terminate()
        deadline = time.monotonic() + _GRACE_S
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        return DelayedSubmission(Job(self.words))


def submit(config: SlurmConfig, words: Sequence[str], folder: Path, name: str) -> list[str]:
    """Bring the jobs that wait or run for a folder up to `config.workers`.

    Args:
        words: of a worker, after the interpreter.
        folder: takes scripts, logs and the list of jobs; all nodes must see it.
        name: of the jobs.

    Returns:
        the ids of all jobs that wait or run now, older ones included.

    Raises:
        UserError: this machine has no Slurm or no submitit, or Slurm refuses the jobs.
    """
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise UserError(
                f"hardware=slurm: {program} is not found here (start this on a login node of the cluster)."
            )
    if importlib.util.find_spec("submitit") is None:
        raise UserError("hardware=slurm: submitit is not installed (pip install 'himap[slurm]').")
    folder.mkdir(parents=True, exist_ok=True)
    running = list(in_queue(_known(folder)))
    n_new = config.workers - len(running)
    if n_new > 0:
        running += _submit(config, [Job(_words(config.container, words)) for _ in range(n_new)], folder, name)
        write_json(folder / _JOBS, running)
    return running


def _submit(config: SlurmConfig, jobs: Sequence[Job], folder: Path, name: str) -> list[str]:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    pyxis = config.container if config.container and config.container.runtime == "pyxis" else None
    executor = SlurmExecutor(folder, max_num_timeout=config.requeues, python=pyxis.python if pyxis else None)
    executor.update_parameters(**parameters(config, name))
    try:
        # Submitit repeats what sbatch writes; the error below says it once.
        with redirect_stderr(io.StringIO()), executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except (FailedJobError, FailedSubmissionError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise UserError(f"hardware=slurm: sbatch refuses: {reason} (see hardware.slurm).") from error
    return [job.job_id for job in submitted]


def parameters(config: SlurmConfig, name: str) -> dict[str, Any]:
    """What submitit hands to sbatch and srun."""
    chosen: dict[str, Any] = {
        "job_name": name,
        "time": config.time_min,
        "cpus_per_task": config.cpus,
        "signal_delay_s": config.signal_s,
        "partition": config.partition,
        "gpus_per_node": config.gpus or None,
        "mem": None if config.memory_gib is None else f"{round(config.memory_gib * 1024)}M",
        "setup": config.setup or None,
        # A preempted job must not be gone, whatever the cluster's default is.
        "additional_parameters": {"requeue": True, **config.options},
    }
    container = config.container
    if container is not None and container.runtime == "pyxis":
        chosen["srun_args"] = [f"--container-image={container.image}"]
        if container.mounts:
            chosen["srun_args"].append(f"--container-mounts={','.join(container.mounts)}")
    return {key: value for key, value in chosen.items() if value is not None}


def _words(container: ContainerConfig | None, words: Sequence[str]) -> list[str]:
    """A worker's command; with apptainer it runs inside, and the job that queues it again outside."""
    if container is None:
        return [sys.executable, *words]
    if container.runtime == "pyxis":
        return [container.python, *words]
    binds = [part for mount in container.mounts for part in ("--bind", mount)]
    return ["apptainer", "exec", "--nv", *binds, container.image, container.python, *words]


def in_queue(jobs: Sequence[str]) -> dict[str, str]:
    """Job -> state (PENDING, RUNNING, ...) of those that Slurm has not ended with.

    Raises:
        UserError: Slurm does not answer.
    """
    if not jobs:
        return {}
    mains = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={mains}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise UserError(f"hardware=slurm: squeue: {' '.join(done.stderr.split())} (is the cluster up?).")
    states = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
    return {job: states[job] for job in jobs if job in states}


def logs(folder: Path, job: str) -> list[str]:
    """The last lines that a job wrote as errors; none where it never ran."""
    path = folder / f"{job}_0_log.err"
    return last_lines(path) if path.exists() else []


def _known(folder: Path) -> list[str]:
    path = folder / _JOBS
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []
