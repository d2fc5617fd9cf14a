"""What a pruning strategy is: a list of stages. Arithmetic and rules only, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from himap.errors import ConfigError
from himap.rules import unknown

CRITERIA = ("img2txt", "img2img", "all2img", "last2img", "random", "uniform")


@dataclass(frozen=True)
class Stage:
    """One pruning step: after `layer` decoder layers, drop the share `drop` of the remaining image tokens.

    Attributes:
        layer: how many decoder layers see the tokens before the drop (the paper's K), at least 1.
        drop: share of the image tokens still present that is dropped (the paper's R), 0 <= drop < 1.
        criterion: name in `CRITERIA`; decides which query rows are summed to rank the tokens.
        normalise: divide a column's sum by the number of rows that can see it (causal attention favours
            early columns).
        exclude_self: leave a token's attention to itself out of its sum.
        seed: for the criterion `random`.
        name: the stage's key in the configuration, used in error messages.
    """

    layer: int
    drop: float
    criterion: str
    normalise: bool = False
    exclude_self: bool = False
    seed: int = 0
    name: str = "stage"

    def __post_init__(self) -> None:
        key = f"pruning.stages.{self.name}"
        if self.layer < 1:
            raise ConfigError(f"{key}.layer={self.layer}: must be at least 1 (layers that see all tokens).")
        if not 0 <= self.drop < 1:
            raise ConfigError(f"{key}.drop={self.drop}: must be in [0, 1) (the share of tokens to drop).")
        if self.criterion not in CRITERIA:
            raise unknown(f"{key}.criterion", self.criterion, CRITERIA)

    def n_kept(self, n: int) -> int:
        """Number of image tokens kept of `n`: round((1 - drop) * n)."""
        return round((1 - self.drop) * n)


@dataclass(frozen=True)
class Strategy:
    """A named list of stages with strictly growing layers; no stage at all is the plain model."""

    name: str
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        for earlier, later in zip(self.stages, self.stages[1:], strict=False):
            if later.layer <= earlier.layer:
                raise ConfigError(
                    f"pruning.stages.{later.name}.layer={later.layer}: must be greater than "
                    f"pruning.stages.{earlier.name}.layer={earlier.layer} "
                    "(a later stage ranks what an earlier one kept)."
                )

    def check_depth(self, n_layers: int) -> None:
        """Refuse stages that lie at or beyond the model's last layer.

        Raises:
            ConfigError: a stage's layer is not below `n_layers`.
        """
        for stage in self.stages:
            if stage.layer >= n_layers:
                raise ConfigError(
                    f"pruning.stages.{stage.name}.layer={stage.layer}: must be below the model's "
                    f"{n_layers} decoder layers (use at most {n_layers - 1})."
                )

    def kept(self, n: int) -> list[tuple[int, int]]:
        """[(layer, image tokens kept after it), ...] for `n` image tokens."""
        result = []
        for stage in self.stages:
            n = stage.n_kept(n)
            result.append((stage.layer, n))
        return result

    def tokens_per_layer(self, n: int, n_layers: int) -> Sequence[int]:
        """Image tokens that enter each decoder layer, [n_layers]."""
        drops = dict(self.kept(n))
        counts = []
        for layer in range(n_layers):
            n = drops.get(layer, n)
            counts.append(n)
        return counts
