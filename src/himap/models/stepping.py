"""Calls a model on a filled cache, one new token at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from himap.positions import counts_tokens, later_positions


class Stepper:
    """Goes on behind a prompt that was read with `prompt_positions`.

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
        output = self._hf(
            input_ids=token,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **self._positions(),
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _positions(self) -> dict[str, Tensor]:
        """Of the last token: behind all that the mask counts before it."""
        n_before = self._mask.long().sum(-1, keepdim=True) - 1
        return {"position_ids": n_before} if counts_tokens(self._hf) else later_positions(self._hf, n_before)
