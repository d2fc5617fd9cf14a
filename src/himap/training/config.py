"""What `himap train` can be told; the defaults of the shipped weights stand in `conf/train.yaml`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from himap.errors import ConfigError
from himap.rules import at_least, one_of


@dataclass
class PhaseConfig:
    """One phase of the training.

    Attributes:
        steps: optimiser steps.
        images: pictures a step.
        learning_rate: peak rate of the transformer's matrices (Muon).
        other_learning_rate: peak rate of all other parameters (AdamW).
    """

    steps: int
    images: int
    learning_rate: float
    other_learning_rate: float

    def __post_init__(self) -> None:
        for name in ("steps", "images", "learning_rate", "other_learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must be positive.")


@dataclass
class TrainConfig:
    """The whole training of the embedded model.

    Attributes:
        tower: the vision tower alone, on a dense label for each patch.
        decoder: projector and decoder on questions, with the tower frozen.
        text_tokens: room for questions behind each picture, in tokens.
        centre_layer: decoder layers after which image tokens must know whether they hold a thing's centre.
        grounding_layer: decoder layers after which noun phrases must know what they mean.
        judgement_layer: decoder layers after which relations are compared, options judged, things counted.
        auxiliary_weight: weight of these three losses.
        seed: of the weights and of the drawn data.
        device: cpu or cuda.
        autocast: compute in bfloat16 where that is safe; weights stay float32.
        compile: torch.compile the forward passes.
        threads: CPU threads; 0 leaves torch's choice.
        checkpoint_every, log_every: in steps.
    """

    tower: PhaseConfig
    decoder: PhaseConfig
    text_tokens: int
    centre_layer: int
    grounding_layer: int
    judgement_layer: int
    auxiliary_weight: float
    seed: int
    device: str
    autocast: bool
    compile: bool
    threads: int
    checkpoint_every: int
    log_every: int

    def __post_init__(self) -> None:
        for name in ("text_tokens", "centre_layer", "checkpoint_every", "log_every"):
            at_least(name, getattr(self, name), 1)
        if not self.centre_layer < self.grounding_layer < self.judgement_layer:
            raise ConfigError(
                f"grounding_layer={self.grounding_layer}: must lie between centre_layer={self.centre_layer} "
                f"and judgement_layer={self.judgement_layer} (each builds on the one before)."
            )
        at_least("threads", self.threads, 0)
        one_of("device", self.device, ("cpu", "cuda"))

    def recipe(self) -> dict[str, Any]:
        """What decides the weights; a checkpoint made with another recipe is refused."""
        how = ("device", "compile", "threads", "checkpoint_every", "log_every")
        return {key: value for key, value in asdict(self).items() if key not in how}
