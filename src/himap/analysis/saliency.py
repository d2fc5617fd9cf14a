"""Saliency: how much each attention weight moves the loss at the answer's first token, summed by groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from himap.analysis.maps import attention_rows, heads_times, row_chunks
from himap.analysis.trunk import Trunk
from himap.attention import Attended, tap
from himap.layout import Layout

GROUPS = ("system", "image", "instruction")


class Flows(NamedTuple):
    """Saliency of a batch, summed over pairs of groups in the order of `GROUPS`.

    Attributes:
        flow: [B, L, 3, 3] float32, [..., row group, column group]: what the rows draw from the columns.
        pairs: [B, 3, 3] int64, pairs of one row and one column that the causal mask lets see each other.
        logits: [B, vocabulary] at each prompt's last position.
    """

    flow: Tensor
    pairs: Tensor
    logits: Tensor


def flows(
    model: Any, inputs: dict[str, Tensor], layout: Layout, targets: Tensor, *, squared: bool = False
) -> Flows:
    """Saliency of every decoder layer, from two forward passes and one backward pass.

    The first forward remembers each layer's input; the backward runs one layer at a time again, with the
    model's own attention (SDPA). When the gradient of an attention's output arrives, its map and the map's
    gradient are rebuilt in chunks of rows and summed at once: A = softmax(q k'), dL/dA = dL/dO v'. Neither an
    H x T x T tensor nor the graph of more than one layer is ever held.

    Args:
        model: transformers' model, in eval mode.
        inputs: of its forward, left-padded; samples have [B, T] tokens.
        layout: of those tokens.
        targets: [B], the id of each answer's first token.
        squared: the released code's |A A dL/dA| in place of |A dL/dA|.

    Source: HiMAP, Eq. 1, with L the cross-entropy at the last prompt position.
    """
    groups = torch.stack([layout.system, layout.image, layout.instruction], 1).float()  # [B, 3, T]
    valid = layout.present if bool(layout.padding.any()) else None
    trunk = Trunk(model, inputs)
    result = torch.zeros(len(targets), trunk.n_layers, 3, 3, device=targets.device)

    def reduce(index: int, attended: Attended, gradient: Tensor) -> None:
        for rows, saliency in saliency_rows(attended, gradient, valid, squared):
            at_rows, at_columns = groups[:, :, rows], groups[:, :, : rows.stop]
            result[:, index] += at_rows @ saliency @ at_columns.transpose(-1, -2)

    def watch(index: int, attended: Attended) -> None:
        # Without the output: a hook that held it would keep the whole graph alive in a cycle.
        kept = replace(attended, output=attended.output.detach())
        attended.output.register_hook(partial(reduce, index, kept))

    gradient: Tensor | None = None
    with frozen(model), torch.enable_grad():
        # From the top, one layer's graph at a time.
        for index in reversed(range(trunk.n_layers)):
            hidden = trunk.hidden(index).detach().requires_grad_()
            with tap(trunk.attention(index), editor=partial(watch, index)):
                after = trunk.step(index, hidden)
            if gradient is None:
                # Samples do not see each other: the sum's gradient is each sample's own.
                nn.functional.cross_entropy(trunk.head(after), targets, reduction="sum").backward()
            else:
                after.backward(gradient)
            gradient = hidden.grad
    return Flows(result, visible_pairs(groups), trunk.logits)


@torch.no_grad()
def saliency_rows(
    attended: Attended, gradient: Tensor, valid: Tensor | None, squared: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of the saliency map of one layer.

    Args:
        attended: the attention's inputs.
        gradient: [B, T, H, D], of the loss by the attention's output.
        valid: [B, T] bool, false at padding; None where all are tokens.
        squared: multiply by A twice.

    Yields:
        rows, and [B, R, rows.stop]: mean over heads of |A dL/dA|; later columns are zero.
    """
    value = attended.value.float().transpose(-1, -2)
    gradient = gradient.transpose(1, 2).float()
    for rows in row_chunks(0, attended.query.shape[2], attended.query):
        if not bool(gradient[:, :, rows].any()):
            continue  # most rows of the last layer have no say in the loss
        attention = attention_rows(attended.query, attended.key, attended.scale, rows, valid=valid)
        product = heads_times(gradient[:, :, rows], value[..., : rows.stop]).mul_(attention)
        if squared:
            product.mul_(attention)
        yield rows, product.abs_().mean(1)


def visible_pairs(groups: Tensor) -> Tensor:
    """Number of (row, column) pairs with column <= row, by group.

    Args:
        groups: [B, 3, T], ones where a token is of a group.

    Returns:
        [B, 3, 3] int64.
    """
    # Columns up to each row, without the T x T triangle.
    before = groups.double().cumsum(-1)
    return (groups.double() @ before.transpose(-1, -2)).long()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient; only activations get one."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
