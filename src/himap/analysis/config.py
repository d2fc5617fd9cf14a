"""What an analysis can be told. Dataclasses with their rules, light to import."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from himap.config import EvaluateConfig, PruningConfig
from himap.config.compose import parse
from himap.errors import ConfigError, placed
from himap.rules import at_least, one_of

FLOWS = ("vt", "vr", "vv")
SCOPES = ("layer", "window", "from_layer")
MODES = ("post", "pre")
LABELS = ("continued", "bare")


class Disruption(NamedTuple):
    """A flow that is blocked in the layers `first` to `last`, both counted from 1 and included.

    `flow` is `vt` (instruction rows, image columns), `vr` (as many random rows, image columns) or `vv` (image
    rows and columns).
    """

    flow: str
    first: int
    last: int


@dataclass
class SaliencyConfig:
    """`analysis=saliency`: which attention weights the answer's first token hangs on.

    Attributes:
        name: the option's name.
        kind: `saliency`.
        product: `attention` for |A dL/dA|, `squared` for the released code's |A A dL/dA|.
        label: the token that the loss asks for, see `himap.analysis.labels`.
        axis: Fig. 3 shows what a group has `sent` (its columns) or `received` (its rows).
        normalise: divide S_vv and S_vt by the number of pairs that they sum.
        rescale: bring all curves of a figure to [0, 1] together, as the released plots do.
        only_correct: leave samples out whose first token the model gets wrong; their loss, and so their
            saliency, can be many times larger.
    """

    name: str
    kind: str
    product: str
    label: str
    axis: str
    normalise: bool
    rescale: bool
    only_correct: bool

    def __post_init__(self) -> None:
        one_of("analysis.product", self.product, ("attention", "squared"))
        one_of("analysis.label", self.label, LABELS)
        one_of("analysis.axis", self.axis, ("sent", "received"))

    def measured(self) -> dict[str, Any]:
        """The settings that change what is measured on a sample."""
        return {"kind": self.kind, "product": self.product, "label": self.label}

    def check_depth(self, n_layers: int) -> None:
        """Any depth will do."""


@dataclass
class DisruptionConfig:
    """`analysis=disruption`: what the answer loses when a flow is blocked.

    Attributes:
        name: the option's name.
        kind: `disruption`.
        flows: of `FLOWS`.
        scope: one `layer`, a `window` of neighbouring layers, or everything `from_layer` on.
        width: layers in a window.
        starts: first blocked layers; negative ones count from the end; empty takes every `stride`-th.
        stride: distance of the starts.
        mode: `post` sets weights to zero; `pre` hides pairs before the softmax.
        seed: of the flow `vr`.
        top: how many of the likeliest tokens the score consistency compares.
        label: as for saliency; decides which samples are answered right.
        only_correct: leave samples out whose first token the undisturbed model gets wrong.
        floor: the least error E = 1 - score consistency that the bias ratio counts.
    """

    name: str
    kind: str
    flows: list[str]
    scope: str
    width: int
    starts: list[int]
    stride: int
    mode: str
    seed: int
    top: int
    label: str
    only_correct: bool
    floor: float

    def __post_init__(self) -> None:
        for flow in self.flows:
            one_of("analysis.flows", flow, FLOWS)
        if not self.flows:
            raise ConfigError(f"analysis.flows=[]: must name a flow (of {', '.join(FLOWS)}).")
        one_of("analysis.scope", self.scope, SCOPES)
        one_of("analysis.mode", self.mode, MODES)
        one_of("analysis.label", self.label, LABELS)
        for key in ("width", "stride", "top"):
            at_least(f"analysis.{key}", getattr(self, key), 1)
        if not 0 < self.floor < 1:
            raise ConfigError(f"analysis.floor={self.floor}: must be in (0, 1), an error of the score.")

    def measured(self) -> dict[str, Any]:
        """The settings that change what is measured on a sample."""
        summarised = ("name", "only_correct", "floor")
        return {key: value for key, value in asdict(self).items() if key not in summarised}

    def ranges(self, n_layers: int) -> list[tuple[int, int]]:
        """First and last blocked layer of every place, from 1.

        Raises:
            ConfigError: a start lies outside the model.
        """
        width = self.width if self.scope == "window" else 1
        starts = self.starts or list(range(1, n_layers - width + 2, self.stride))
        found = []
        for start in starts:
            first = start if start > 0 else n_layers + 1 + start
            last = n_layers if self.scope == "from_layer" else first + width - 1
            if start == 0 or first < 1 or last > n_layers:
                raise ConfigError(
                    f"analysis.starts={start}: the blocked layers must lie in 1 to {n_layers} "
                    f"(negative starts count from the end; width is {width})."
                )
            found.append((first, last))
        if not found:
            raise ConfigError(f"analysis.width={width}: must be at most the model's {n_layers} layers.")
        return found

    def disruptions(self, n_layers: int) -> list[Disruption]:
        """Everything that is blocked in turn, flow by flow."""
        return [Disruption(flow, *layers) for flow in self.flows for layers in self.ranges(n_layers)]

    def check_depth(self, n_layers: int) -> None:
        """Refuse layers that the model does not have.

        Raises:
            ConfigError: the message names the start.
        """
        self.ranges(n_layers)


@dataclass
class KeptConfig:
    """`analysis=kept`: which image tokens survive.

    Attributes:
        name: the option's name.
        kind: `kept`.
        show: how many of the task's first samples are drawn.
        ids: samples to draw instead.
        compare: name -> strategy whose survivors are counted beside those of `pruning`.
    """

    name: str
    kind: str
    show: int
    ids: list[str]
    compare: dict[str, PruningConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least("analysis.show", self.show, 0)

    def measured(self) -> dict[str, Any]:
        """The settings that change what is measured on a sample."""
        return {"kind": self.kind, "compare": {key: asdict(value) for key, value in self.compare.items()}}

    def check_depth(self, n_layers: int) -> None:
        """Refuse strategies deeper than the model.

        Raises:
            ConfigError: the message names the stage.
        """
        for name, pruning in self.compare.items():
            try:
                pruning.strategy().check_depth(n_layers)
            except ConfigError as error:
                raise placed(error, f"analysis.compare.{name}") from error


Settings = SaliencyConfig | DisruptionConfig | KeptConfig


@dataclass
class _Saliency:
    analysis: SaliencyConfig


@dataclass
class _Disruption:
    analysis: DisruptionConfig


@dataclass
class _Kept:
    analysis: KeptConfig


_KINDS: dict[str, type] = {"saliency": _Saliency, "disruption": _Disruption, "kept": _Kept}


@dataclass
class AnalyzeConfig(EvaluateConfig):
    """`himap analyze`: a model and a task looked into; `analysis.kind` says which further keys there are.

    The strategy counts for `kept` alone: the other analyses look at the plain model.
    """

    analysis: dict[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.settings.check_depth(self.model.architecture.n_layers)

    @property
    def settings(self) -> Settings:
        """The group `analysis` with its types and rules checked.

        Raises:
            ConfigError: a key, a type or a value is wrong.
        """
        one_of("analysis.kind", str(self.analysis.get("kind")), tuple(_KINDS))
        checked: Any = parse(_KINDS[self.analysis["kind"]], OmegaConf.create({"analysis": self.analysis}))
        found: Settings = checked.analysis
        return found
