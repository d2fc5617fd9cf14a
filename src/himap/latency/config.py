"""What a benchmark can be told. Dataclasses with their rules, light to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from himap.config import HardwareConfig, ModelConfig, PruningConfig, TrackingConfig
from himap.errors import ConfigError
from himap.latency.shape import Shape
from himap.rules import at_least, one_of

EXECUTIONS = ("eager", "compiled", "graphs", "released")

MIN_ROUNDS = 6
"""With fewer, no two of the measured values enclose the median with 95 % certainty."""


@dataclass
class LatencyConfig:
    """The group `benchmark`: what is compared, at which sizes, and how often.

    Attributes:
        name: the option's name.
        execution: ways to run a strategy; the fastest counts for each, all are written down.
        batch_size: prompts at once, one measurement for each.
        n_image: image tokens of a prompt, one measurement for each.
        n_new: tokens of an answer, one measurement for each.
        rounds: repetitions; each times every strategy once, in random order.
        warmup: untimed runs before the first round.
        energy_s: seconds of running for one reading of the energy counter.
        reference: the strategy that ratios are taken to.
        seed: of the made-up prompts and of the order.
        pruning: label -> strategy.
    """

    name: str
    execution: list[str]
    batch_size: list[int]
    n_image: list[int]
    n_new: list[int]
    rounds: int
    warmup: int
    energy_s: float
    reference: str
    seed: int
    pruning: dict[str, PruningConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_image", "n_new"):
            self._check_axis(name, getattr(self, name))
        self._check_executions()
        if self.rounds < MIN_ROUNDS:
            raise ConfigError(
                f"benchmark.rounds={self.rounds}: must be at least {MIN_ROUNDS} (fewer repetitions give the "
                "median no 95 % interval)."
            )
        at_least("benchmark.warmup", self.warmup, 1)
        at_least("benchmark.energy_s", self.energy_s, 0.5)
        at_least("benchmark.seed", self.seed, 0)
        one_of("benchmark.reference", self.reference, tuple(self.pruning))

    def _check_axis(self, name: str, values: Sequence[int]) -> None:
        if not values:
            raise ConfigError(f"benchmark.{name}=[]: must have a value (write [1], say).")
        for value in values:
            at_least(f"benchmark.{name}", value, 1)
        if len(set(values)) < len(values):
            raise ConfigError(f"benchmark.{name}={values}: must not name a value twice.")

    def _check_executions(self) -> None:
        for kind in self.execution:
            one_of("benchmark.execution", kind, EXECUTIONS)
        written = f"benchmark.execution=[{','.join(self.execution)}]"
        if not self.execution or len(set(self.execution)) < len(self.execution):
            raise ConfigError(f"{written}: must name one or several of {', '.join(EXECUTIONS)}, each once.")
        if "released" in self.execution and len(self.execution) > 1:
            raise ConfigError(
                f"{written}: released must stand alone (it sets the whole decoder to eager attention)."
            )

    def shapes(self, model: ModelConfig) -> list[Shape]:
        """Every combination of the axes, in order."""
        size = model.architecture
        return [
            Shape(batch_size, size.n_system, n_image, size.n_instruction, n_new)
            for batch_size, n_image, n_new in product(self.batch_size, self.n_image, self.n_new)
        ]


@dataclass
class BenchmarkConfig:
    """`himap benchmark`: one model, several strategies, timed against each other."""

    model: ModelConfig
    hardware: HardwareConfig
    tracking: TrackingConfig
    benchmark: LatencyConfig

    def __post_init__(self) -> None:
        for pruning in self.benchmark.pruning.values():
            pruning.strategy().check_depth(self.model.architecture.n_layers)

    def identity(self) -> dict[str, Any]:
        """What changes the numbers of a cell, its own shape aside: the axes may grow from start to start."""
        model, benchmark, hardware = (asdict(part) for part in (self.model, self.benchmark, self.hardware))
        del model["table1"]
        for name in ("name", "batch_size", "n_image", "n_new"):
            del benchmark[name]
        used = ("device", "dtype", "attention", "n_threads")
        return {
            "model": model,
            "benchmark": benchmark,
            "hardware": {name: hardware[name] for name in used},
        }
