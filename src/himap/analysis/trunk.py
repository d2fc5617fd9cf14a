"""One undisturbed pass whose hidden states are remembered, so that branches can go on from any layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

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
        self._head: Any = model.get_output_embeddings()
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._added: list[tuple[Any, ...]] = []
        with torch.no_grad(), self._recording():
            output = model(**inputs, use_cache=False, logits_to_keep=1)
        self.logits: Tensor = output.logits[:, -1].float()

    @property
    def n_layers(self) -> int:
        return len(self._decoder.layers)

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
        states: Tensor = self._calls[index][0][0]
        return states

    def attention(self, index: int) -> nn.Module:
        """The attention module of a layer (0-based)."""
        module: nn.Module = self._decoder.layers[index].self_attn
        return module

    def step(self, index: int, hidden: Tensor) -> Tensor:
        """One layer (0-based), with the visual features that enter behind it: [B, T, D] to [B, T, D]."""
        (_, *rest), kwargs = self._calls[index]
        hidden = self._decoder.layers[index](hidden, *rest, **kwargs)
        if index < len(self._added):
            hidden = self._decoder._deepstack_process(hidden, *self._added[index])
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """What follows the last layer, at the last position: [B, T, D] to logits [B, vocabulary]."""
        logits: Tensor = self._head(self._decoder.norm(hidden)[:, -1:])
        return logits[:, -1].float()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._calls.append((args, kwargs))

        handles = [
            layer.register_forward_pre_hook(remember, with_kwargs=True) for layer in self._decoder.layers
        ]
        try:
            with self._recording_deepstack():
                yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _recording_deepstack(self) -> Iterator[None]:
        """Remember the visual features that enter between the first layers (Qwen3-VL)."""
        if not hasattr(self._decoder, "_deepstack_process"):
            yield
            return
        add = self._decoder._deepstack_process

        def remember(hidden: Tensor, *features: Any) -> Tensor:
            self._added.append(features)
            return add(hidden, *features)

        # On the instance, over the class's method; deleting it brings the method back.
        self._decoder._deepstack_process = remember
        try:
            yield
        finally:
            del self._decoder._deepstack_process
