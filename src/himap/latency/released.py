"""A pruned model as the released code of FastV and HiMAP runs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from himap.models.base import Model
from himap.positions import forget_images
from himap.pruning import Pruner
from himap.strategy import Strategy


class Released:
    """Eager attention that returns its weights in every layer, logits of every position, and no cache.

    Each new token reads the whole prompt again and ranks its image tokens anew. The image features are given
    here; released code computes them with every token again, which pruning leaves alone.

    Args:
        model: a loaded model; its decoder attends eagerly until `close`.
        strategy: what to prune.

    Source: the released implementations, as HiMAP's scripts call them (use_cache=False).
    """

    def __init__(self, model: Model, strategy: Strategy) -> None:
        self._hf = model.hf
        self._attention: str = model.text_config._attn_implementation
        self._attend("eager")
        self._pruner = Pruner(model.hf, strategy, image_token_ids=model.image_token_ids)
        self._inputs: dict[str, Tensor] = {}

    def prefill(self, inputs: dict[str, Tensor]) -> Tensor:
        """Read the prompts: inputs as `Model.encode` gives them, logits [B, vocab] of the last position."""
        self._inputs = dict(inputs)
        return self._forward()

    def step(self, token: Tensor) -> Tensor:
        """Read the prompts and the answers so far with one more token [B, 1]: logits [B, vocab]."""
        n_tokens = self._inputs["input_ids"].shape
        for name, value in self._inputs.items():
            if name == "input_ids":
                self._inputs[name] = torch.cat([value, token], dim=1)
            elif value.shape == n_tokens:
                # The attention mask marks the new token, the kinds of tokens call it text.
                self._inputs[name] = nn.functional.pad(value, (0, 1), value=int(name == "attention_mask"))
        return self._forward()

    def close(self) -> None:
        """Give the decoder its own attention back."""
        self._inputs = {}
        self._attend(self._attention)

    @torch.inference_mode()
    def _forward(self) -> Tensor:
        forget_images(self._hf)
        with self._pruner:
            output = self._hf(**self._inputs, use_cache=False, output_attentions=True)
        return output.logits.float()[:, -1]

    def _attend(self, implementation: str) -> None:
        composite = self._hf.config.get_text_config() is not self._hf.config
        self._hf.set_attn_implementation({"text_config": implementation} if composite else implementation)
