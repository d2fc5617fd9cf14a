"""Disruption: stop a flow of visual information in some layers and see what becomes of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from himap.analysis.config import Disruption
from himap.analysis.maps import attention_rows, heads_times, row_chunks
from himap.analysis.trunk import Trunk
from himap.attention import Attended, tap
from himap.layout import Layout, mix
from himap.support import text_decoder


class Consistency(NamedTuple):
    """How far an answer's first token stays what it was, for one disruption.

    Attributes:
        label: [B] bool, the likeliest token is the same.
        score: [B] float32, Jaccard index of the likeliest tokens before and after.
    """

    label: Tensor
    score: Tensor


def blocked_rows(flow: str, layout: Layout, seed: int = 0) -> Tensor:
    """The query rows that lose the image columns, [B, T] bool.

    `vr` draws, for each sample, as many rows as the instruction has from the image's rows, which are all the
    other rows that can see an image token. The draw depends on the prompt and the seed alone.
    """
    if flow == "vt":
        return layout.instruction
    if flow == "vv":
        return layout.image
    ordinal = layout.image.cumsum(-1)
    draw = mix(mix(layout.fingerprint + seed)[:, None] + ordinal).masked_fill(~layout.image, -(2**63))
    rank = draw.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return layout.image & (rank < layout.instruction.sum(-1, keepdim=True))


def blocked_output(
    attended: Attended, rows: Tensor, columns: Tensor, mode: str, valid: Tensor | None = None
) -> Tensor | None:
    """An attention's output with the pairs of `rows` and `columns` blocked; the other rows keep every bit.

    Args:
        attended: the attention as it ran.
        rows: [B, T] bool.
        columns: [B, T] bool.
        mode: `post` sets the weights to zero, so that a row's sum falls below one; `pre` hides the pairs
            before the softmax, which spreads their weight over the rest (zero where nothing is left).
        valid: [B, T] bool, false at padding; None where all are tokens.

    Returns:
        [B, T, H, D], or None where no pair is blocked.

    Source: HiMAP, section 3 (`post`); its released code (`pre`).
    """
    rows = rows & (columns.cumsum(-1) > 0)
    touched = rows.any(0).nonzero()
    if not len(touched):
        return None
    output = attended.output.clone()
    for part in row_chunks(int(touched[0]), int(touched[-1]) + 1, attended.query):
        chosen = rows[:, part]
        pairs = chosen[..., None] & columns[:, None, : part.stop]
        attention = attention_rows(
            attended.query,
            attended.key,
            attended.scale,
            part,
            valid=valid,
            blocked=pairs if mode == "pre" else None,
        )
        if mode == "post":
            attention = attention.masked_fill_(pairs[:, None], 0)
        new = heads_times(attention, attended.value[:, :, : part.stop].float()).transpose(1, 2)
        output[:, part] = torch.where(chosen[..., None, None], new.to(output.dtype), output[:, part])
    return output


@contextmanager
def blocking(
    model: Any, disruption: Disruption, layout: Layout, *, mode: str, seed: int = 0
) -> Iterator[None]:
    """Block a flow in a model while the `with` block lasts.

    The output of the named layers' attention is corrected; masks, which layers share, are never touched.
    """
    rows = blocked_rows(disruption.flow, layout, seed)
    valid = layout.present if bool(layout.padding.any()) else None

    def edit(attended: Attended) -> Tensor | None:
        return blocked_output(attended, rows, layout.image, mode, valid)

    layers: Any = text_decoder(model).layers
    with ExitStack() as stack:
        for layer in layers[disruption.first - 1 : disruption.last]:
            stack.enter_context(tap(layer.self_attn, editor=edit))
        yield


def consistencies(
    model: Any,
    inputs: dict[str, Tensor],
    layout: Layout,
    disruptions: Sequence[Disruption],
    *,
    mode: str = "post",
    seed: int = 0,
    top: int = 5,
) -> tuple[Tensor, list[Consistency]]:
    """Compare the next token before and after each disruption.

    The undisturbed pass runs once; each disruption goes on from its hidden states at the first blocked layer.

    Args:
        model: transformers' model, in eval mode.
        inputs: of its forward, left-padded, [B, T] tokens.
        layout: of those tokens.
        disruptions: what to block, one after the other.
        mode: `post` or `pre`, see `blocked_output`.
        seed: of the flow `vr`.
        top: how many of the likeliest tokens the score compares.

    Returns:
        the undisturbed logits [B, vocabulary], and one consistency a disruption.
    """
    trunk = Trunk(model, inputs)
    best = trunk.logits.topk(top).indices
    found = []
    for disruption in disruptions:
        with blocking(model, disruption, layout, mode=mode, seed=seed):
            now = trunk.logits_from(disruption.first).topk(top).indices
        n_common = (best[:, :, None] == now[:, None]).sum((1, 2))
        found.append(Consistency(best[:, 0] == now[:, 0], n_common / (2 * top - n_common)))
    return trunk.logits, found
