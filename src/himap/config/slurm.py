"""Workers on a Slurm cluster: how many, what each is given, and the container they run in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from himap.errors import ConfigError
from himap.rules import at_least, one_of


@dataclass
class ContainerConfig:
    """The container that a worker runs in.

    Attributes:
        image: for apptainer a .sif file, a folder or a URL; for pyxis what `srun --container-image` takes.
        runtime: `apptainer` or `pyxis`.
        mounts: folders `HOST:CONTAINER` that are seen inside; the sweep's folder must be among them or seen
            anyway, under the same name.
        python: the interpreter inside that has himap (for pyxis submitit, too).
    """

    image: str
    runtime: str = "apptainer"
    mounts: list[str] = field(default_factory=list)
    python: str = "python3"

    def __post_init__(self) -> None:
        one_of("hardware.slurm.container.runtime", self.runtime, ("apptainer", "pyxis"))


@dataclass
class SlurmConfig:
    """The jobs of a Slurm cluster that work on one study.

    Attributes:
        workers: jobs, one worker each.
        partition: null takes the cluster's default.
        time_min: a job's limit in minutes.
        gpus: GPUs of a job; a worker uses one.
        cpus: cores of a job.
        memory_gib: of a job; null takes the partition's default.
        requeues: how often a job that reaches its limit is queued again; a preempted one always is.
        signal_s: seconds before the limit at which a worker stops its trial in order.
        options: further options of sbatch, such as {account: mine, qos: high, constraint: h100}.
        setup: shell lines that run before the worker, such as [module load cuda].
        container: null runs in the environment that submits.
    """

    workers: int = 1
    partition: str | None = None
    time_min: int = 60
    gpus: int = 1
    cpus: int = 8
    memory_gib: float | None = None
    requeues: int = 10
    signal_s: int = 90
    options: dict[str, Any] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    container: ContainerConfig | None = None

    def __post_init__(self) -> None:
        for key, low in (("workers", 1), ("time_min", 1), ("gpus", 0), ("cpus", 1), ("requeues", 0)):
            at_least(f"hardware.slurm.{key}", getattr(self, key), low)
        at_least("hardware.slurm.memory_gib", self.memory_gib, 0.1)
        if not 0 < self.signal_s < 60 * self.time_min:
            raise ConfigError(
                f"hardware.slurm.signal_s={self.signal_s}: must be above 0 and below the limit of "
                f"hardware.slurm.time_min={self.time_min} (in seconds)."
            )
