"""Attention masks for layers whose tokens were thinned out, in the form that each implementation takes."""

from __future__ import annotations

import torch
from torch import Tensor


def prefill_mask(valid: Tensor | None, like: Tensor, implementation: str, n_before: int = 0) -> Tensor | None:
    """Causal mask over the tokens present.

    Args:
        valid: [B, n_before + n] bool, or None where all are tokens.
        like: hidden states [B, n, D] of the rows; gives their number, the dtype and the device.
        implementation: name of the attention function.
        n_before: tokens before the rows, whose keys are in the cache.

    Returns:
        sdpa: [B, 1, n, n_before + n] bool, None where `is_causal` says it all; eager: the same as additive
        floats; flash: `valid` itself.
    """
    if "flash" in implementation or (valid is None and not n_before and implementation == "sdpa"):
        return valid
    column = torch.arange(n_before + like.shape[1], device=like.device)
    row = column[n_before:, None]
    seen = (column <= row)[None, None]
    if valid is not None:
        # A filled-up place attends to itself, for a row without any column would make NaN on some devices.
        seen = seen & (valid.to(like.device)[:, None, None] | (column == row))
    return _additive(seen, like.dtype) if implementation == "eager" else seen


def decode_mask(valid: Tensor | None, n_keys: int, like: Tensor, implementation: str) -> Tensor | None:
    """Mask of one new token over the thinned-out prompt and all tokens since; None where it sees every key.

    Args:
        valid: [B, n] bool of the prompt, or None where all are tokens.
        n_keys: n plus the tokens generated since, the new one included.
        like: hidden states [B, 1, D].
        implementation: name of the attention function.
    """
    if valid is None:
        return None
    seen = torch.nn.functional.pad(valid.to(like.device), (0, n_keys - valid.shape[-1]), value=True)
    if "flash" in implementation:
        return seen
    seen = seen[:, None, None]
    return _additive(seen, like.dtype) if implementation == "eager" else seen


def place_mask(last: Tensor, n_slots: int, like: Tensor, implementation: str) -> Tensor:
    """Mask of one new token over slots of which those behind `last` are not filled yet, [1, 1, 1, n_slots].

    Args:
        last: [1], the new token's own slot.
        n_slots: filled or not.
        like: hidden states [B, 1, D].
        implementation: name of the attention function, sdpa or eager.
    """
    seen = (torch.arange(n_slots, device=like.device) <= last)[None, None, None]
    return _additive(seen, like.dtype) if implementation == "eager" else seen


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
