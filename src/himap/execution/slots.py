"""A key-value cache of fixed size: each layer has room for what its stage leaves and for what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Slots:
    """Stands in for transformers' cache while a program is traced or run.

    Args:
        tensors: keys and values of each layer in turn, [B, H_kv, n_l + n_new, D_head] each.
        place: how many tokens followed the prompt before this one, one integer on the device; None while
            the prompt is read.
        lengths: n_l, the prompt's tokens that enter each layer.
    """

    def __init__(
        self, tensors: Sequence[Tensor], lengths: Sequence[int], place: Tensor | None = None
    ) -> None:
        self._tensors, self._lengths, self._place = tensors, lengths, place

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep a layer's new keys and values, [B, H_kv, n, D_head]; return all that a query may look at."""
        stored = self._tensors[2 * layer_idx : 2 * layer_idx + 2]
        n = self._lengths[layer_idx]
        for slots, new in zip(stored, (key, value), strict=True):
            if self._place is None:
                slots[:, :, :n].copy_(new)
            else:
                slots.index_copy_(2, n + self._place, new)
        # A prompt looks at itself alone, so attention needs no mask; a step masks what is not yet filled.
        return (key, value) if self._place is None else (stored[0], stored[1])


def make_slots(config: Any, lengths: Sequence[int], n_batch: int, n_new: int, like: Tensor) -> list[Tensor]:
    """Empty slots for every layer: keys and values in turn.

    Args:
        config: of the text decoder.
        lengths: the prompt's tokens that enter each layer.
        n_batch: prompts.
        n_new: tokens that may follow.
        like: gives dtype and device.
    """
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = config.num_key_value_heads
    # Zeros, for what a mask hides still goes through products, and stale memory may hold NaN.
    return [
        torch.zeros(n_batch, heads, n + n_new, width, dtype=like.dtype, device=like.device)
        for n in lengths
        for _ in range(2)
    ]
