"""What a sweep can be told: axes, budget, sampler, storage. Dataclasses with their rules, light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from himap.config import PruningConfig
from himap.errors import ConfigError
from himap.rules import at_least, one_of
from himap.strategy import CRITERIA

SAMPLERS = ("ehvi", "tpe", "gp", "random", "qmc", "nsga2", "grid")
FLOPS = ("paper", "prefill")


@dataclass
class LayerAxis:
    """The range of a stage's `layer`, both ends included."""

    low: int
    high: int

    def check(self, key: str) -> None:
        if self.low < 1:
            raise ConfigError(f"{key}.low={self.low}: must be at least 1 (the layers that see all tokens).")
        if self.high < self.low:
            raise ConfigError(f"{key}.high={self.high}: must not be below {key}.low={self.low} (empty).")


@dataclass
class DropAxis:
    """The range of a stage's `drop`, both ends included; `step` makes it a raster, null is continuous."""

    low: float
    high: float
    step: float | None = None

    def check(self, key: str) -> None:
        if not 0 <= self.low < 1:
            raise ConfigError(f"{key}.low={self.low}: must be in [0, 1), a share of image tokens.")
        if not 0 <= self.high < 1:
            raise ConfigError(f"{key}.high={self.high}: must be in [0, 1), a share of image tokens.")
        if self.high < self.low:
            raise ConfigError(f"{key}.high={self.high}: must not be below {key}.low={self.low} (empty).")
        if self.step is not None and self.step <= 0:
            raise ConfigError(f"{key}.step={self.step}: must be positive (or null for a continuous range).")
        if self.step is not None:
            n_steps = (self.high - self.low) / self.step
            if abs(n_steps - round(n_steps)) > 1e-6:
                raise ConfigError(
                    f"{key}.step={self.step}: must divide the range {self.low} to {self.high} evenly "
                    f"(high={round(self.low + int(n_steps) * self.step, 6)} would)."
                )


@dataclass
class AxesConfig:
    """The axes of a search: layer and drop of the two stages, and their criteria where they are searched.

    An empty list for `C1` or `C2` leaves the criterion as `pruning.stages` has it.
    """

    K1: LayerAxis
    R1: DropAxis
    K2: LayerAxis
    R2: DropAxis
    C1: list[str] = field(default_factory=list)
    C2: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("K1", "R1", "K2", "R2"):
            getattr(self, name).check(f"search.axes.{name}")
        if self.K2.high <= self.K1.low:
            raise ConfigError(
                f"search.axes.K2.high={self.K2.high}: must be greater than search.axes.K1.low={self.K1.low} "
                "(a later stage ranks what an earlier one kept)."
            )
        for name in ("C1", "C2"):
            for criterion in getattr(self, name):
                one_of(f"search.axes.{name}", criterion, CRITERIA)

    def check_depth(self, n_layers: int) -> None:
        """Refuse layer ranges that reach the model's last layer.

        Raises:
            ConfigError: a range ends at or above `n_layers`.
        """
        for name in ("K1", "K2"):
            axis: LayerAxis = getattr(self, name)
            if axis.high >= n_layers:
                raise ConfigError(
                    f"search.axes.{name}.high={axis.high}: must be below the model's {n_layers} layers "
                    f"(use at most {n_layers - 1})."
                )


@dataclass
class SearchConfig:
    """How a sweep is run.

    Attributes:
        axes: what is searched.
        trials: the budget: configurations evaluated in total, over all resumptions of the sweep's folder.
        sampler: one of `SAMPLERS`; `ehvi` takes what is expected to add most hypervolume to the front, the
            others are Optuna's.
        seeds: configurations spread evenly over the FLOPs that `ehvi`, `tpe` and `gp` start from.
        starts: configurations that are tried first, such as the layers that `himap analyze` suggests; axes
            that one leaves out are as in `pruning`.
        seed: of the sampler and of the seeds.
        group: how many trials are evaluated together in one pass over the samples: a number, or `auto`, which
            looks at the memory, at what the sampler knows and at what is left of the budget.
        max_attempts: a trial whose process died is begun again until it was begun so often, then it has
            failed; one that died in a group is begun alone before it is given up.
        storage: `sqlite` or `journal` (a file in the sweep's folder), or a database URL for Optuna.
        name: the study's name in a database that several sweeps share, and the group of its W&B runs; by
            default the sweep's folder.
        flops: the second objective: share of the plain model by `paper` (Eq. 10) or `prefill` (real count).
        baselines: name -> strategy that the front is compared with.
        heldout_split: the split on which the front is evaluated again.
        heldout_limit: samples of that split; null takes all.
        heldout_points: most points of the front that are evaluated again, spread evenly over it.
    """

    axes: AxesConfig
    trials: int = 64
    sampler: str = "ehvi"
    seeds: int = 24
    seed: int = 0
    group: int | str = "auto"
    max_attempts: int = 2
    storage: str = "sqlite"
    name: str | None = None
    flops: str = "paper"
    starts: list[dict[str, Any]] = field(default_factory=list)
    baselines: dict[str, PruningConfig] = field(default_factory=dict)
    heldout_split: str = "heldout"
    heldout_limit: int | None = None
    heldout_points: int = 16

    def __post_init__(self) -> None:
        for key, low in (("trials", 1), ("seeds", 0), ("seed", 0), ("heldout_points", 0)):
            at_least(f"search.{key}", getattr(self, key), low)
        at_least("search.max_attempts", self.max_attempts, 1)
        if self.group != "auto" and (not isinstance(self.group, int) or self.group < 1):
            raise ConfigError(f"search.group={self.group}: must be auto or a number of trials, at least 1.")
        at_least("search.heldout_limit", self.heldout_limit, 1)
        one_of("search.sampler", self.sampler, SAMPLERS)
        one_of("search.flops", self.flops, FLOPS)
        if self.storage not in ("sqlite", "journal") and "://" not in self.storage:
            raise ConfigError(
                f"search.storage={self.storage}: must be sqlite, journal or a database URL "
                "such as postgresql://user@host/name."
            )
        if self.sampler == "grid":
            for name in ("R1", "R2"):
                axis: DropAxis = getattr(self.axes, name)
                if axis.step is None and axis.high > axis.low:
                    raise ConfigError(
                        f"search.axes.{name}.step=null: the grid sampler needs a raster (set it to 0.1, say)."
                    )
