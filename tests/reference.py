"""Independent re-statements that the laws compare with: the released algorithm, and pruning as masking.

Both run the model's own layers with eager attention and whole attention maps; neither uses himap's engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tiny import Tiny
from torch import Tensor

from himap.pruning import text_decoder
from himap.strategy import Strategy


def decoder_of(tiny: Tiny) -> Any:
    """The text decoder of a tiny model."""
    return text_decoder(tiny.model)


def decoder_inputs(
    tiny: Tiny, inputs: dict[str, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor], list[Tensor]]:
    """Hidden states [B, T, D] that enter the first layer, (cos, sin), deepstack features by layer."""
    seen: dict[str, Any] = {"deepstack": []}
    decoder = decoder_of(tiny)
    if hasattr(decoder, "_deepstack_process"):

        def keep(hidden: Tensor, mask: Tensor, features: Tensor) -> Tensor:
            seen["deepstack"].append(torch.zeros_like(hidden).masked_scatter(mask[..., None], features))
            return hidden

        decoder._deepstack_process = keep

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["hidden"], seen["tables"] = args[0], kwargs["position_embeddings"]

    handle = decoder_of(tiny).layers[0].register_forward_pre_hook(look, with_kwargs=True)
    try:
        tiny.model(**inputs, use_cache=False)
    finally:
        handle.remove()
        decoder.__dict__.pop("_deepstack_process", None)
    return seen["hidden"], seen["tables"], seen["deepstack"]


@torch.no_grad()
def released_algorithm(
    tiny: Tiny, inputs: dict[str, Tensor], strategy: Strategy, n_system: int
) -> tuple[list[list[int]], Tensor]:
    """HiMAP and FastV as their repositories compute them, on one unpadded prompt.

    Averages whole attention maps over heads, sums rows, takes the top k of the image columns, and goes on
    with system, kept image and instruction tokens at their old positions. (The repositories slice by
    constants; here the image tokens may lie in several runs.)

    Returns:
        Kept positions of every stage, and the last position's logits [vocab].
    """
    hidden, tables, deepstack = decoder_inputs(tiny, inputs)
    positions = torch.arange(hidden.shape[1])
    is_image = inputs["input_ids"][0] == tiny.image_token_ids[0]
    stages = {stage.layer: stage for stage in strategy.stages}
    kept = []
    attention = hidden.new_zeros(0)
    for number, layer in enumerate(decoder_of(tiny).layers):
        if number in stages:
            here = is_image[positions]
            columns = here.nonzero().flatten()
            rows = {
                "img2txt": ~here & (positions >= n_system),
                "img2img": here,
                "all2img": torch.ones_like(here),
                "last2img": positions == positions[-1],
            }[stages[number].criterion]
            scores = attention[0].mean(0)[rows][:, columns].sum(0)
            best = columns[scores.topk(round((1 - stages[number].drop) * len(columns))).indices]
            here[best] = False  # what is still marked goes
            hidden, positions = hidden[:, ~here], positions[~here]
            kept.append(positions[is_image[positions]].tolist())
        n = len(positions)
        mask = torch.full((n, n), torch.finfo(hidden.dtype).min).triu(1)[None, None]
        hidden, attention = _layer(layer, hidden, mask, tuple(t[..., positions, :] for t in tables))
        if number < len(deepstack):
            hidden = hidden + deepstack[number][:, positions]
    return kept, tiny.model.lm_head(decoder_of(tiny).norm(hidden))[0, -1]


def _layer(layer: Any, hidden: Tensor, mask: Tensor, tables: Any) -> tuple[Tensor, Tensor]:
    maps: list[Tensor] = []
    handle = layer.self_attn.register_forward_hook(lambda module, args, output: maps.append(output[1]))
    try:
        return layer(hidden, attention_mask=mask, position_embeddings=tables), maps[0]
    finally:
        handle.remove()


@contextmanager
def masked(tiny: Tiny, strategy: Strategy, dropped: Sequence[Tensor]) -> Iterator[None]:
    """Hide tokens instead of dropping them: from each stage's layer on, for every later query.

    Args:
        tiny: a model with eager attention, or any if the batch has padding (else sdpa has no mask).
        strategy: gives the layers.
        dropped: per stage [B, T] bool, true at all tokens that are gone after it.
    """
    layers = decoder_of(tiny).layers
    handles = []
    ends = [stage.layer for stage in strategy.stages[1:]] + [len(layers)]
    for stage, end, gone in zip(strategy.stages, ends, dropped, strict=True):
        for layer in layers[stage.layer : end]:
            handles.append(layer.register_forward_pre_hook(_hider(gone), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hider(gone: Tensor) -> Any:
    def hide(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = kwargs["attention_mask"].clone()
        # Beam search repeats each sample; new tokens are never hidden.
        columns = gone.repeat_interleave(mask.shape[0] // gone.shape[0], 0)[:, None, None]
        prompt = mask[..., : gone.shape[-1]]
        prompt.masked_fill_(columns, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)
        return args, {**kwargs, "attention_mask": mask}

    return hide
