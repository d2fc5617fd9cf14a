"""Calls a model on a filled cache, one new token at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Stepper:
    """Goes on behind a prompt.

    One token at a time, for that is the only cached call that a pruner has to know.

    Args:
        hf: a transformers model for generation.
        mask: [B, T], the prompt's padding mask.
        cache: filled by the prompt.
    """

    def __init__(self, hf: Any, mask: Tensor, cache: Any) -> None:
        self._hf = hf
        self._mask = mask
        self._cache = cache

    def __call__(self, token: Tensor) -> Tensor:
        """Logits [B, vocabulary] in float32 behind a token, [B, 1]."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        deltas = getattr(self._hf.model, "rope_deltas", None)
        places: dict[str, Tensor] = {}
        if deltas is not None:
            # Given a mask alone, such a model would place the whole sequence instead of the new token.
            place = self._mask.sum(-1, keepdim=True) - 1 + deltas
            places["position_ids"] = place.expand(3, *place.shape)
        output = self._hf(
            input_ids=token,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **places,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits
