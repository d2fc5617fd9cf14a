"""Rows of an attention map, rebuilt from query and key in chunks that stay small."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Bound on one chunk of attention rows over all heads; several such chunks are alive at once.
_CHUNK_BYTES = 16 * 2**20


def row_chunks(start: int, stop: int, query: Tensor) -> Iterator[slice]:
    """Cut the rows `start` to `stop` of a query [B, H, T, D] into slices whose maps stay small."""
    n_batch, n_heads, n_tokens, _ = query.shape
    step = max(1, _CHUNK_BYTES // (4 * n_batch * n_heads * n_tokens))
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def attention_rows(
    query: Tensor,
    key: Tensor,
    scale: float,
    rows: slice,
    *,
    valid: Tensor | None = None,
    blocked: Tensor | None = None,
) -> Tensor:
    """Softmax attention of some query rows under the causal mask, in single precision.

    Args:
        query: [B, H, T, D] after RoPE.
        key: [B, H_kv, T, D]; H is a multiple of H_kv.
        scale: factor on q.k before the softmax.
        rows: R neighbouring rows.
        valid: [B, T] bool, false at padding; None where all are tokens.
        blocked: [B, R, C] bool, pairs hidden before the softmax; a row that sees nothing else is all zero.

    Returns:
        [B, H, R, C] with C = rows.stop: no row of these sees a later column.
    """
    n_columns = rows.stop
    scores = heads_times(query[:, :, rows].float() * scale, key[:, :, :n_columns].float().transpose(-1, -2))
    column = torch.arange(n_columns, device=query.device)
    row = column[rows, None]
    hidden = column > row
    if valid is not None:
        # Padding attends to itself, for a row without any column would be NaN.
        hidden = hidden | ~(valid[:, None, :n_columns] | (column == row))
    if blocked is not None:
        hidden = hidden | blocked
    hidden = hidden.unsqueeze(-3)  # [B or nothing, 1 head, R, C]
    attention = scores.masked_fill_(hidden, float("-inf")).softmax(-1)
    return attention if blocked is None else attention.masked_fill_(hidden, 0)


def heads_times(rows: Tensor, right: Tensor) -> Tensor:
    """Product of [B, H, R, X] with [B, H_kv, X, Y]: neighbouring heads share a right side."""
    n_batch, n_heads, n_rows, width = rows.shape
    n_kv_heads = right.shape[1]
    stacked = rows.reshape(n_batch, n_kv_heads, -1, width)
    return (stacked @ right).view(n_batch, n_heads, n_rows, -1)
