"""The searched space: parameters K1, R1, K2, R2 (and criteria) to strategies and back."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from himap.errors import ConfigError
from himap.rules import one_of
from himap.search.config import AxesConfig, DropAxis
from himap.strategy import Strategy

if TYPE_CHECKING:
    from optuna.trial import BaseTrial, FrozenTrial

Params = dict[str, int | float | str]


@dataclass(frozen=True)
class Space:
    """Which configurations a search may try.

    Attributes:
        axes: the ranges.
        template: a strategy of two stages that gives what is not searched: criteria, options, stage names.
        n_layers: decoder layers of the model.
        n_image: image tokens of a prompt; configurations that keep the same numbers of them are equal.
    """

    axes: AxesConfig
    template: Strategy
    n_layers: int
    n_image: int

    def __post_init__(self) -> None:
        if len(self.template.stages) != 2:
            raise ConfigError(
                f"pruning={self.template.name}: a sweep searches two stages, this strategy has "
                f"{len(self.template.stages)} (take pruning=himap; R=0 makes a stage do nothing)."
            )
        self.axes.check_depth(self.n_layers)

    @property
    def names(self) -> list[str]:
        """The axes in the order of the tables."""
        return ["K1", "R1", "K2", "R2"] + [name for name in ("C1", "C2") if getattr(self.axes, name)]

    def suggest(self, trial: BaseTrial, dynamic: bool) -> Params:
        """Let Optuna choose a configuration.

        The second layer is searched as its distance dK from the first. Samplers that model all parameters
        together need ranges that never change: for them (`dynamic=False`) dK has one range and K2 is clipped.
        """
        axes = self.axes
        k1 = trial.suggest_int("K1", axes.K1.low, min(axes.K1.high, axes.K2.high - 1))
        if dynamic:
            d_k = trial.suggest_int("dK", max(1, axes.K2.low - k1), axes.K2.high - k1)
        else:
            d_k = trial.suggest_int("dK", 1, axes.K2.high - axes.K1.low)
        params: Params = {
            "K1": k1,
            "R1": self._suggest_drop(trial, "R1", axes.R1),
            "K2": min(max(k1 + d_k, axes.K2.low), axes.K2.high),
            "R2": self._suggest_drop(trial, "R2", axes.R2),
        }
        for name in ("C1", "C2"):
            if getattr(axes, name):
                params[name] = trial.suggest_categorical(name, getattr(axes, name))
        return params

    @staticmethod
    def _suggest_drop(trial: BaseTrial, name: str, axis: DropAxis) -> float:
        # Optuna's rasters add up steps; rounding keeps 0.15000000000000002 out of tables and keys.
        return round(trial.suggest_float(name, axis.low, axis.high, step=axis.step), 6)

    def fixed(self, params: Params) -> Params:
        """The same configuration in Optuna's parameters, to be enqueued."""
        fixed = {name: value for name, value in params.items() if name != "K2"}
        fixed["dK"] = int(params["K2"]) - int(params["K1"])
        return fixed

    def trial(self, params: Params, dynamic: bool, **rest: Any) -> FrozenTrial:
        """The same configuration as a trial for a study; `rest` is its state, its values and attributes."""
        from optuna.trial import FixedTrial, create_trial

        asked = FixedTrial(self.fixed(params))
        self.suggest(asked, dynamic)
        return create_trial(params=asked.params, distributions=asked.distributions, **rest)

    def read(self, fixed: Params) -> Params:
        """The configuration that parameters of Optuna stand for; the reverse of `fixed`."""
        k2 = int(fixed["K1"]) + int(fixed["dK"])
        params: Params = {name: fixed[name] for name in self.names if name != "K2"}
        params["K2"] = min(max(k2, self.axes.K2.low), self.axes.K2.high)
        params |= {name: round(float(params[name]), 6) for name in ("R1", "R2")}
        return {name: params[name] for name in self.names}

    def strategy(self, params: Params) -> Strategy:
        """The strategy that a configuration stands for."""
        stages = []
        for i, stage in enumerate(self.template.stages, start=1):
            stages.append(
                replace(
                    stage,
                    layer=int(params[f"K{i}"]),
                    drop=float(params[f"R{i}"]),
                    criterion=str(params.get(f"C{i}", stage.criterion)),
                )
            )
        return Strategy(" ".join(f"{name}={value}" for name, value in params.items()), tuple(stages))

    def key(self, strategy: Strategy) -> str:
        """Equal for strategies that keep the same image tokens; readable, and fit for a folder's name.

        Stages that drop no token count as absent, drops as the number of tokens that they leave of `n_image`.
        """
        parts, n = [], self.n_image
        for stage in strategy.stages:
            kept = stage.n_kept(n)
            if kept == n:
                continue
            options = "".join(
                [
                    "-normalise" if stage.normalise else "",
                    "-other" if stage.exclude_self else "",
                    f"-seed{stage.seed}" if stage.criterion == "random" else "",
                ]
            )
            parts.append(f"K{stage.layer}-{kept}-{stage.criterion}{options}")
            n = kept
        return "_".join(parts) or "plain"

    def params_of(self, strategy: Strategy) -> Params | None:
        """The configuration in this space that equals a strategy, or None where the axes do not reach it."""
        key = self.key(strategy)
        effective, n = [], self.n_image
        for stage in strategy.stages:
            if stage.n_kept(n) != n:
                effective.append(stage)
            n = stage.n_kept(n)
        if len(effective) > 2:
            return None
        # A strategy of fewer than two stages may sit in either slot; the other one then drops nothing.
        for slots in itertools.combinations((1, 2), len(effective)):
            placed = dict(zip(slots, effective, strict=True))
            layers = [placed[slot].layer if slot in placed else None for slot in (1, 2)]
            k1 = layers[0] or self.axes.K1.low
            k2 = layers[1] or max(k1 + 1, self.axes.K2.low)
            params: Params = {"K1": k1, "K2": k2}
            for slot in (1, 2):
                params[f"R{slot}"] = round(placed[slot].drop, 6) if slot in placed else 0.0
                choices: list[str] = getattr(self.axes, f"C{slot}")
                if choices:
                    params[f"C{slot}"] = placed[slot].criterion if slot in placed else choices[0]
            params = {name: params[name] for name in self.names}
            if self.contains(params) and self.key(self.strategy(params)) == key:
                return params
        return None

    def contains(self, params: Params) -> bool:
        """Whether a configuration lies within the axes and on their rasters (Optuna does not check this)."""
        for i in ("1", "2"):
            layer: int = int(params[f"K{i}"])
            axis = getattr(self.axes, f"K{i}")
            if not axis.low <= layer <= axis.high:
                return False
            drop, drops = float(params[f"R{i}"]), getattr(self.axes, f"R{i}")
            if not drops.low - 1e-9 <= drop <= drops.high + 1e-9:
                return False
            if drops.step is not None:
                steps = (drop - drops.low) / drops.step
                if abs(steps - round(steps)) > 1e-6:
                    return False
            choices = getattr(self.axes, f"C{i}")
            if choices and params[f"C{i}"] not in choices:
                return False
        return int(params["K1"]) < int(params["K2"])

    def start(self, number: int, given: Params) -> Params:
        """The configuration that `search.starts[number]` means; axes left out are the template's.

        Raises:
            ConfigError: an axis is unknown, or the configuration lies outside the axes.
        """
        params: Params = {}
        for i, stage in enumerate(self.template.stages, start=1):
            params |= {f"K{i}": stage.layer, f"R{i}": stage.drop, f"C{i}": stage.criterion}
        params = {name: params[name] for name in self.names}
        for name, value in given.items():
            one_of(f"search.starts.{number}", name, self.names)
            if name[0] in "KR" and not isinstance(value, int | float):
                raise ConfigError(f"search.starts.{number}.{name}={value}: must be a number.")
            params[name] = value
        text = ", ".join(f"{name}: {value}" for name, value in params.items())
        if not self.contains(params):
            raise ConfigError(
                f"search.starts.{number}={{{text}}}: must lie within search.axes, on their steps, with "
                "K1 < K2 (what it leaves out comes from pruning.stages)."
            )
        return params

    def draw(self, rng: random.Random) -> Params:
        """One configuration, uniform over the axes."""
        axes = self.axes
        k1 = rng.randint(axes.K1.low, min(axes.K1.high, axes.K2.high - 1))
        params: Params = {
            "K1": k1,
            "R1": self._draw_drop(rng, axes.R1),
            "K2": rng.randint(max(k1 + 1, axes.K2.low), axes.K2.high),
            "R2": self._draw_drop(rng, axes.R2),
        }
        for name in ("C1", "C2"):
            if getattr(axes, name):
                params[name] = rng.choice(getattr(axes, name))
        return params

    @staticmethod
    def _draw_drop(rng: random.Random, axis: DropAxis) -> float:
        if axis.step is None:
            return round(rng.uniform(axis.low, axis.high), 6)
        # Built for each draw, the raster would take most of a draw's time.
        return round(axis.low + rng.randrange(_n_steps(axis) + 1) * axis.step, 6)

    def grid(self) -> Iterator[Params]:
        """Every configuration on the rasters, in order."""
        axes = self.axes
        k1s = range(axes.K1.low, axes.K1.high + 1)
        k2s = range(axes.K2.low, axes.K2.high + 1)
        choices = [getattr(axes, name) for name in self.names[4:]]
        for k1, r1, k2, r2, *criteria in itertools.product(
            k1s, _raster(axes.R1), k2s, _raster(axes.R2), *choices
        ):
            if k1 < k2:
                values = (k1, r1, k2, r2, *criteria)
                yield dict(zip(self.names, values, strict=True))


def _raster(axis: DropAxis) -> list[float]:
    if axis.step is None:
        return [axis.low]
    return [round(axis.low + i * axis.step, 6) for i in range(_n_steps(axis) + 1)]


def _n_steps(axis: DropAxis) -> int:
    return round((axis.high - axis.low) / axis.step) if axis.step else 0
