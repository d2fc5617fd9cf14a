"""A pruned prefill and a decode step as plain functions of tensors whose shapes the strategy fixes.

For prompts with the same numbers of tokens the number that each stage keeps is known beforehand. So nothing
is asked of the device on the way: no value is read back, no shape depends on one. That is what compilation
and CUDA graphs need; tests trace both functions with fake tensors, where such a question raises.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from himap.attention import tap
from himap.dropping import attention_scores, fixed_scores, reads_attention
from himap.errors import Unsupported
from himap.execution.slots import Slots
from himap.layout import Layout
from himap.masks import place_mask, prefill_mask
from himap.models.base import Model
from himap.selection import Selection, gather_tokens
from himap.strategy import Stage, Strategy
from himap.support import check_layout, check_supported, text_decoder

N_INPUTS = 4
"""Arguments of either function before the slots."""


class Program:
    """The functions for one model, strategy and shape of prompt.

    Args:
        model: a loaded model.
        strategy: what to prune.
        layout: of the prompts to come; other prompts must have its counts.

    Attributes:
        counts: tokens by kind, one entry a prompt.
        lengths: tokens that enter each layer.
        spliced: whether `states` are image features, which `prefill` puts in their places.

    Raises:
        Unsupported: the model or the batch has no program; the message says why.
        ConfigError: a stage lies beyond the model's layers.
    """

    def __init__(self, model: Model, strategy: Strategy, layout: Layout, *, spliced: bool) -> None:
        check_supported(model.hf)
        decoder: Any = text_decoder(model.hf)
        self._decoder = decoder
        self._head: Any = model.hf.get_output_embeddings()
        self._image_token_ids = model.image_token_ids
        self._implementation: str = decoder.config._attn_implementation
        self.spliced = spliced
        n_layers = len(decoder.layers)
        strategy.check_depth(n_layers)
        if self._implementation not in ("sdpa", "eager"):
            raise Unsupported(
                f"attn_implementation={self._implementation}: has no program of static shapes (use sdpa)."
            )
        if hasattr(self._decoder, "_deepstack_process"):
            raise Unsupported(
                f"model={model.name}: visual features enter between its layers; run it with execution eager."
            )
        check_layout(layout)
        self.counts = layout.counts
        self._check_even(layout.image.shape[1])
        self._stages = {stage.layer: stage for stage in strategy.stages if stage.drop}
        n_text = self.counts[0].n_text
        self.lengths = [n + n_text for n in strategy.tokens_per_layer(self.counts[0].n_image, n_layers)]

    def _check_even(self, n_tokens: int) -> None:
        for number, count in enumerate(self.counts):
            if count.n_tokens < n_tokens or count.n_image != self.counts[0].n_image:
                raise Unsupported(
                    f"input_ids: prompt {number} has {count.n_tokens} tokens, {count.n_image} of them image "
                    f"tokens, prompt 0 of {n_tokens} tokens has {self.counts[0].n_image}; static shapes need "
                    "equal prompts without padding (run them with execution eager)."
                )

    def prefill(
        self, ids: Tensor, states: Tensor, cos: Tensor, sin: Tensor, *slots: Tensor
    ) -> tuple[Tensor, ...]:
        """Read the prompts.

        Args:
            ids: [B, T].
            states: image features [n, D] where `spliced`, else the embedded prompts [B, T, D].
            cos: [..., B or 1, T + n_new, D_head].
            sin: likewise.
            slots: of every layer (see `make_slots`); filled.

        Returns:
            logits [B, vocab] of the last positions; then the positions [B, n] present after each stage that
            drops something.
        """
        layout = Layout.from_ids(ids, self._image_token_ids)
        n_batch, n_tokens = ids.shape
        positions = torch.arange(n_tokens, device=ids.device).expand(n_batch, -1)
        selection = Selection(positions, None, self.counts)
        hidden = self._embed(ids, states, layout.image) if self.spliced else states
        tables: tuple[Tensor, ...] = (cos[..., :n_tokens, :], sin[..., :n_tokens, :])
        cache = Slots(slots, self.lengths)
        mask = prefill_mask(None, hidden, self._implementation)
        present, scores = [], None
        for index, layer in enumerate(self._decoder.layers):
            stage = self._stages.get(index)
            if stage is not None and selection.drops(stage):
                if scores is None:
                    scores = fixed_scores(stage, layout, selection)
                selection, chosen = selection.after(stage, scores, layout)
                hidden = gather_tokens(hidden, chosen)
                tables = tuple(gather_tokens(table, chosen) for table in tables)
                mask = prefill_mask(None, hidden, self._implementation)
                present.append(selection.positions)
            hidden, scores = self._scored(
                layer,
                self._stages.get(index + 1),
                layout,
                selection,
                hidden,
                attention_mask=mask,
                position_embeddings=tables,
                past_key_values=cache,
            )
        return self._logits(hidden), *present

    def step(self, token: Tensor, place: Tensor, cos: Tensor, sin: Tensor, *slots: Tensor) -> tuple[Tensor]:
        """Read one more token.

        Args:
            token: [B, 1], ids.
            place: [1], how many tokens followed the prompt before.
            cos: as for `prefill`.
            sin: likewise.
            slots: as `prefill` filled them; the token is added.

        Returns:
            logits [B, vocab].
        """
        hidden = self._decoder.embed_tokens(token)
        n_prompt = self.counts[0].n_tokens
        tables = tuple(table.index_select(-2, n_prompt + place) for table in (cos, sin))
        cache = Slots(slots, self.lengths, place)
        masks = {
            n: place_mask(n + place, slots[2 * index].shape[2], hidden, self._implementation)
            for index, n in enumerate(self.lengths)
        }
        for layer, n in zip(self._decoder.layers, self.lengths, strict=True):
            hidden = layer(
                hidden,
                attention_mask=masks[n],
                position_embeddings=tables,
                past_key_values=cache,
                use_cache=True,
            )
        return (self._logits(hidden),)

    def _embed(self, ids: Tensor, features: Tensor, image: Tensor) -> Tensor:
        """Text embedded, image features in their places: [B, T, D]."""
        order = (image.flatten().cumsum(0) - 1).clamp(min=0).view_as(ids)
        return torch.where(image[..., None], features[order], self._decoder.embed_tokens(ids))

    def _scored(
        self,
        layer: Any,
        stage: Stage | None,
        layout: Layout,
        selection: Selection,
        hidden: Tensor,
        **call: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """One layer, and the scores for the stage right behind it where that reads attention."""
        scores: list[Tensor] = []

        def listen(module: nn.Module, query: Tensor, key: Tensor, scale: float) -> None:
            assert stage is not None
            scores.append(attention_scores(stage, layout, selection, query, key, scale))

        with ExitStack() as stack:
            if stage is not None and selection.drops(stage) and reads_attention(stage):
                stack.enter_context(tap(layer.self_attn, listen))
            hidden = layer(hidden, use_cache=True, **call)
        return hidden, scores[0] if scores else None

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._head(self._decoder.norm(hidden[:, -1:]))
        return logits[:, -1]
