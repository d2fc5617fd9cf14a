"""The one place that touches transformers' attention: the tap on a layer, and scores in chunks."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from himap.errors import Unsupported, UserError

TAP = "himap_tap"

# Bound on one chunk of attention rows. Larger chunks are not faster on a CPU, and this stays far below what a
# layer's activations take.
_CHUNK_BYTES = 32 * 2**20

Listener = Callable[[nn.Module, Tensor, Tensor, float], None]
"""Called with (attention module, query [B, H, T, D], key [B, H_kv, T, D], scale) before attention runs."""


@dataclass(frozen=True, eq=False)
class Attended:
    """One run of an attention module, as it was computed.

    Attributes:
        module: the attention module.
        query: [B, H, T, D] after RoPE and q/k-norm.
        key: [B, H_kv, T, D]; H is a multiple of H_kv.
        value: [B, H_kv, T, D].
        scale: factor on q.k before the softmax.
        output: [B, T, H, D], before the output projection.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    output: Tensor


Editor = Callable[[Attended], Tensor | None]
"""Called after attention ran; what it returns takes the output's place, None leaves it."""

_tapped: dict[nn.Module, tuple[Any, Listener | None, Editor | None]] = {}


@contextmanager
def tap(attention: Any, listener: Listener | None = None, *, editor: Editor | None = None) -> Iterator[None]:
    """Let `listener` see the query and key (after RoPE and q/k-norm) of each forward of an attention module.

    An `editor` also sees the value and the output, and may replace the output.

    The attention itself is computed as before, by the model's own implementation (sdpa, eager, flash). Only
    this module's view of the config changes, so the masks of the model, the other layers and the vision tower
    stay what they are. On leaving, the module has its own config again.

    Raises:
        UserError: the module is tapped already.
    """
    if attention in _tapped:
        raise UserError("attention tap: this layer is tapped already (leave the other context first).")
    own_config = attention.config
    config = copy.copy(own_config)
    # Not through the property: its setter would walk into sub-configs that the copy shares with the original.
    config._attn_implementation_internal = TAP
    _tapped[attention] = (own_config, listener, editor)
    attention.config = config
    try:
        yield
    finally:
        attention.config = own_config
        del _tapped[attention]


def _tapped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    own_config, listener, editor = _tapped[module]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if listener is not None:
        listener(module, query, key, scale)
    tapped_config = module.config
    # Flash attention asks the module's config which kernel to load, so it must see the real name.
    module.config = own_config
    try:
        attend = implementation(own_config._attn_implementation, module)
        output, weights = attend(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    finally:
        module.config = tapped_config
    if editor is not None:
        edited = editor(Attended(module, query, key, value, scale, output))
        output = output if edited is None else edited
    return output, weights


def _tapped_mask(*args: Any, config: Any, **kwargs: Any) -> Any:
    raise Unsupported(f"attn_implementation={TAP}: is himap's own; load the model with sdpa or eager.")


def implementation(name: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The attention function of that name; `eager` lives in the module's own modelling file."""
    if name == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS[name]


# Under one name in both registries: without the second, transformers would silently build no mask at all for
# a model whose text config bore the name.
AttentionInterface.register(TAP, _tapped_attention)
AttentionMaskInterface.register(TAP, _tapped_mask)


def right_align(mask: Tensor, width: int) -> Tensor:
    """Indices of each row's true positions in order, pushed to the right end, [B, width].

    Rows with fewer than `width` true positions begin with zeros; the caller masks them.

    Args:
        mask: [B, T] bool, at most `width` true ones a row.
        width: of the result.
    """
    n_batch, n_tokens = mask.shape
    # Counting is cheaper than sorting: each true position is written to its place, the false ones to one more
    # place at the end, which is cut off.
    ordinal = mask.cumsum(-1)
    place = torch.where(mask, ordinal + (width - 1 - ordinal[:, -1:]), width)
    columns = torch.arange(n_tokens, device=mask.device).expand(n_batch, -1)
    return columns.new_zeros(n_batch, width + 1).scatter_(-1, place, columns)[:, :width]


@torch.no_grad()
def column_sums(
    query: Tensor,
    key: Tensor,
    rows: Tensor,
    scale: float,
    *,
    valid: Tensor | None = None,
    n_rows: int | None = None,
    normalise: bool = False,
    exclude_self: bool = False,
) -> Tensor:
    """Sum causal attention over the given query rows, without the H x T x T matrix.

    Args:
        query: [B, H, T, D] after RoPE.
        key: [B, H_kv, T, D]; H is a multiple of H_kv.
        rows: [B, T] bool, the query rows to sum; another number in each sample is fine.
        scale: factor on q.k before the softmax.
        valid: [B, T] bool, false at columns that nobody attends to (padding); None where all are real.
        n_rows: an upper bound on true `rows` per sample; None asks the device for it.
        normalise: divide column j's sum by the number of chosen rows that can see it (rows at or after j).
        exclude_self: leave token j's attention to itself out of column j.

    Returns:
        [B, T] float32, averaged over heads; column j = attention that token j receives.

    Source: HiMAP, Eq. 8 and 9.
    """
    n_batch, n_heads, n_tokens, width = query.shape
    n_kv_heads = key.shape[1]
    if valid is not None:
        rows = rows & valid
    if n_rows is None:
        n_rows = int(rows.sum(-1).max())
    sums = query.new_zeros(n_batch, n_tokens, dtype=torch.float32)
    index = right_align(rows, n_rows)
    chosen = torch.arange(n_rows, 0, -1, device=query.device) <= rows.sum(-1, keepdim=True)
    batch = torch.arange(n_batch, device=query.device)[:, None]
    columns = torch.arange(n_tokens, device=query.device)
    key = key.float().transpose(-1, -2)
    chunk = max(1, _CHUNK_BYTES // (4 * n_batch * n_heads * n_tokens))
    for start in range(0, n_rows, chunk):
        stop = min(start + chunk, n_rows)
        # Indices are right-aligned: at least n_rows - stop positions lie after the chunk's last row.
        n_columns = n_tokens - (n_rows - stop)
        row = index[:, start:stop]
        q = query.transpose(1, 2)[batch, row].transpose(1, 2).float() * scale  # [B, H, R, D]
        q = q.reshape(n_batch, n_kv_heads, -1, width)  # heads that share a key head, one below the other
        attention = (q @ key[..., :n_columns]).view(n_batch, n_heads, stop - start, n_columns)
        seen = columns[:n_columns] <= row[..., None]  # [B, R, C]
        if valid is not None:
            seen = seen & valid[:, None, :n_columns]
        # Rows that only fill up count nothing; letting them see everything keeps NaN out of the product.
        seen = seen | ~chosen[:, start:stop, None]
        attention = attention.masked_fill_(~seen[:, None], float("-inf"))
        attention = attention.sub_(attention.amax(-1, keepdim=True)).exp_()
        weight = chosen[:, None, start:stop] / attention.sum(-1)  # [B, H, R]
        if exclude_self:
            attention.masked_fill_((columns[:n_columns] == row[..., None])[:, None], 0)
        sums[:, :n_columns] += (weight.flatten(1)[:, None] @ attention.flatten(1, 2)).squeeze(1)
    sums /= n_heads
    if normalise:
        n_seeing = rows.flip(-1).cumsum(-1).flip(-1)
        if exclude_self:
            n_seeing = n_seeing - rows.long()
        sums /= n_seeing.clamp(min=1)
    return sums
