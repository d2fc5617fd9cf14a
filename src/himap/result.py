"""Result: the one format of what lies in outputs/."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import himap
from himap.errors import UserError
from himap.files import write_json


@dataclass(frozen=True)
class Result:
    """The outcome of one strategy on one model, and on one task where answers were asked for.

    Attributes:
        model: name of the model.
        pruning: name of the strategy.
        flops: `paper_tflops`, `paper_share`, `prefill_tflops`, `prefill_share`; over several prompts the mean
            cost and the share of the summed cost.
        kept: [layer, image tokens kept after it] for each stage, the mean where prompts differ.
        config_sha256: hash of the settings that change the numbers.
        environment: versions and machine.
        task: name of the task; empty where only cost was computed, like all of the following.
        split: part of the task's data.
        n_samples: samples that were answered and scored.
        n_failed: samples that raised an error; they are in no metric.
        metrics: name -> value, and `primary` -> name of the headline metric.
        ci95: bootstrap interval of the primary metric, [low, high].
        samples_per_second: of this run alone; null when every answer lay there already.
        failed: ids of the samples that failed.
        notes: what a reader of the numbers needs to know.
    """

    model: str
    pruning: str
    flops: dict[str, float]
    kept: list[list[float]]
    config_sha256: str
    environment: dict[str, Any]
    task: str = ""
    split: str = ""
    n_samples: int = 0
    n_failed: int = 0
    metrics: dict[str, float | str | None] = field(default_factory=dict)
    ci95: list[float] | None = None
    samples_per_second: float | None = None
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def primary(self) -> float:
        """Value of the headline metric.

        Raises:
            KeyError: the result has none.
        """
        value = self.metrics[str(self.metrics["primary"])]
        return float("nan") if value is None else float(value)

    def to_dict(self) -> dict[str, Any]:
        """The content of result.json; a metric that is not a number becomes null."""
        content = asdict(self)
        for name, value in content["metrics"].items():
            if isinstance(value, float) and not math.isfinite(value):
                content["metrics"][name] = None
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Result:
        """The reverse of `to_dict`; keys of later versions are ignored.

        Raises:
            TypeError: the content is no mapping or lacks a field.
        """
        if not isinstance(content, Mapping):
            raise TypeError("no mapping")
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})

    def save(self, path: Path) -> None:
        """Write result.json, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read a result.json.

        Raises:
            UserError: the file is missing or is no result.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: cannot be read as a result ({error}).") from error


def digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 of nested settings; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8")).hexdigest()


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions and machine. Reads torch's threads and GPU only where torch is loaded already."""
    torch = sys.modules.get("torch")
    return {
        "himap": himap.__version__,
        "git": _git(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "platform": platform.platform(),
        "device": f"{device} ({_device_name(device, torch)})",
        "n_threads": torch.get_num_threads() if torch is not None else os.cpu_count(),
    }


def _device_name(device: str, torch: Any) -> str:
    if device.startswith("cuda") and torch is not None:
        return str(torch.cuda.get_device_name(device))
    return _cpu_name()


@functools.cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


@functools.cache
def _git() -> str | None:
    """Commit of the checkout that runs, `-dirty` where tracked files differ; None for an installed wheel."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
