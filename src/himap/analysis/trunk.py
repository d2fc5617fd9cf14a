"""One undisturbed pass whose hidden states are remembered, so that branches can go on from any layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from himap.entry import Entry
from himap.support import text_decoder


class Trunk:
    """The pass of a batch through a model, kept layer by layer.

    Args:
        model: transformers' model, in eval mode.
        inputs: of its forward, left-padded.

    Attributes:
        logits: [B, vocabulary] at each prompt's last position.
    """

    def __init__(self, model: Any, inputs: dict[str, Tensor]) -> None:
        self._decoder: Any = text_decoder(model)
        with torch.no_grad():
            self._entry = Entry(model, inputs)
            hidden = self._entry.hidden
            self._hidden: list[Tensor] = []
            for index in range(self.n_layers):
                self._hidden.append(hidden)
                hidden = self.step(index, hidden)
            self.logits = self.head(hidden)

    @property
    def n_layers(self) -> int:
        return self._entry.n_layers

    def logits_from(self, layer: int) -> Tensor:
        """Run again from a layer on, as the model (with what is attached to it now) computes it.

        Args:
            layer: the first layer that runs, 1 to L; it gets the hidden states of the undisturbed pass.

        Returns:
            [B, vocabulary] at the last position.
        """
        with torch.no_grad():
            hidden = self.hidden(layer - 1)
            for index in range(layer - 1, self.n_layers):
                hidden = self.step(index, hidden)
            return self.head(hidden)

    def hidden(self, index: int) -> Tensor:
        """What the undisturbed pass gave to a layer (0-based), [B, T, D]."""
        return self._hidden[index]

    def attention(self, index: int) -> nn.Module:
        """The attention module of a layer (0-based)."""
        module: nn.Module = self._decoder.layers[index].self_attn
        return module

    def step(self, index: int, hidden: Tensor) -> Tensor:
        """One layer (0-based), with the visual features that enter behind it: [B, T, D] to [B, T, D]."""
        return self._entry.layer(index, hidden)

    def head(self, hidden: Tensor) -> Tensor:
        """What follows the last layer, at the last position: [B, T, D] to logits [B, vocabulary]."""
        return self._entry.head(hidden)
