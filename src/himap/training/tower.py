"""Phase one: the vision tower alone learns, for each patch, what it shows and where that thing lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from himap.training.config import TrainConfig
from himap.training.data import N_CLASSES, tower_batch
from himap.training.loop import Trainer, prefetched


class PropertyHeads(nn.Module):
    """One linear classifier for each property of a thing, and one that tells things from background."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.properties = nn.ModuleList(nn.Linear(width, n) for n in N_CLASSES)
        self.present = nn.Linear(width, 2)

    def loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropies of all classifiers, summed.

        Args:
            hidden: [N, D].
            labels: [N, 5]; a row of negative numbers shows nothing.

        Returns:
            scalar loss; [n, 5] which properties of the n things present were told right.
        """
        present = labels[:, 0] >= 0
        loss = F.cross_entropy(self.present(hidden), present.long())
        hidden, labels = hidden[present], labels[present]
        right = []
        for index, head in enumerate(self.properties):
            logits = head(hidden)
            loss = loss + F.cross_entropy(logits, labels[:, index])
            right.append(logits.argmax(-1) == labels[:, index])
        return loss, torch.stack(right, dim=1)


def train_tower(model: Any, config: TrainConfig, folder: Path, progress: Callable[..., None]) -> None:
    """Train `model`'s vision tower in place."""
    tower = model.model.vision_tower
    heads = PropertyHeads(model.config.vision_config.hidden_size)
    modules = nn.ModuleDict({"tower": tower, "heads": heads})
    modules.to(config.device)
    forward: Callable[[torch.Tensor], torch.Tensor] = lambda x: tower(x).last_hidden_state[:, 1:]  # noqa: E731
    if config.compile:
        forward = torch.compile(forward)
    batches = prefetched(lambda step: tower_batch(config.seed, step, config.tower.images))

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        pictures, labels = (tensor.to(config.device) for tensor in batches(step))
        with torch.autocast(config.device, torch.bfloat16, enabled=config.autocast):
            hidden = forward(pictures)
        total, right = heads.loss(hidden.float().flatten(0, 1), labels.flatten(0, 1))
        if (step + 1) % config.log_every:
            return total, {}
        names = ("shape", "colour", "size", "column", "row")
        shares = dict(zip(names, right.float().mean(0).tolist(), strict=True))
        return total, shares | {"shape_and_colour": right[:, :2].all(1).float().mean().item()}

    Trainer("tower", config.tower, config, modules, loss, folder).run(progress)
