"""What a batch of prompts brings to the decoder's first layer, and the layers one by one from there."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from himap.positions import prompt_positions
from himap.support import text_decoder


class _Reached(Exception):
    """The first layer is reached; what follows is run by hand."""


class Entry:
    """A batch at the door of a model's decoder: embedded, with its images merged in, not yet in a layer.

    Args:
        model: transformers' model, in eval mode.
        inputs: of its forward.

    Attributes:
        hidden: [B, T, D], what enters the first layer.
        arguments: what the model hands to every layer besides.
    """

    def __init__(self, model: Any, inputs: dict[str, Tensor]) -> None:
        self._decoder: Any = text_decoder(model)
        self._head: Any = model.get_output_embeddings()
        self._positional: tuple[Any, ...] = ()
        # Qwen3-VL's visual features that enter behind the first layers, and where.
        self._deepstack: tuple[Tensor | None, list[Tensor]] = (None, [])
        self.arguments: dict[str, Any] = {}
        self._reach(model, inputs)

    def _reach(self, model: Any, inputs: dict[str, Tensor]) -> None:
        handles = [
            self._decoder.register_forward_pre_hook(self._at_decoder, with_kwargs=True),
            self._decoder.layers[0].register_forward_pre_hook(self._at_first_layer, with_kwargs=True),
        ]
        try:
            positions = prompt_positions(model, inputs.get("attention_mask"))
            model(**inputs, **positions, use_cache=False, logits_to_keep=1)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()

    @property
    def n_layers(self) -> int:
        return len(self._decoder.layers)

    def layer(self, index: int, hidden: Tensor, changes: dict[str, Any] | None = None) -> Tensor:
        """One layer (0-based), with the visual features that enter behind it: [B, n, D] to [B, n, D].

        Args:
            changes: arguments that replace the model's own.
        """
        arguments = {**self.arguments, **(changes or {})}
        hidden = self._decoder.layers[index](hidden, *self._positional, **arguments)
        mask, features = self._deepstack
        if index < len(features):
            hidden = self._decoder._deepstack_process(hidden, mask, features[index])
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """What follows the last layer, at the last position: [B, n, D] to float32 logits [B, vocabulary]."""
        logits: Tensor = self._head(self._decoder.norm(hidden[:, -1:]))
        return logits[:, -1].float()

    def _at_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        features = kwargs.get("deepstack_visual_embeds")
        if features is not None:
            self._deepstack = (kwargs["visual_pos_masks"], list(features))

    def _at_first_layer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        (self.hidden, *positional), self.arguments = args, kwargs
        self._positional = tuple(positional)
        raise _Reached
