"""Where tokens stand: the `position_ids` that a model is called with."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def counts_tokens(hf: Any) -> bool:
    """Whether a position is a number of tokens; with M-RoPE images are placed in two dimensions more.

    Args:
        hf: transformers' model.
    """
    return not hasattr(getattr(hf, "model", None), "rope_deltas")


def forget_images(hf: Any) -> None:
    """Forget where the images of the last prompt ended: M-RoPE keeps it, and text alone sets nothing."""
    if not counts_tokens(hf):
        hf.model.rope_deltas = None


def prompt_positions(hf: Any, mask: Tensor | None) -> dict[str, Tensor]:
    """Positions of a prompt that count its own tokens and no padding, as `generate` has them.

    Args:
        hf: transformers' model.
        mask: [B, T], the padding mask; None where there is no padding.

    Returns:
        `position_ids` [B, T]; nothing for M-RoPE, where the model leaves the padding out by itself.
    """
    if mask is None or not counts_tokens(hf):
        return {}
    return {"position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)}


def later_positions(hf: Any, n_before: Tensor) -> dict[str, Tensor]:
    """Where the next tokens stand, for models that do not count them by themselves.

    Args:
        hf: transformers' model after a prefill.
        n_before: [B, n], the number of tokens before each.

    Returns:
        `position_ids` [3, B, n] for M-RoPE; nothing for other models.
    """
    deltas = getattr(getattr(hf, "model", None), "rope_deltas", None)
    if deltas is None:
        return {}
    # A picture takes fewer positions than tokens; the model keeps the difference of its last prompt.
    place = n_before + deltas.to(n_before.device)
    return {"position_ids": place.expand(3, *place.shape)}
