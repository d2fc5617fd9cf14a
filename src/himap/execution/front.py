"""From an encoded batch to the tensors that a program of static shapes starts from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from himap.entry import Entry
from himap.positions import counts_tokens, forget_images, later_positions
from himap.support import text_decoder

# Families whose image features are rows for their placeholders, in order, and whose positions count tokens.
_SPLICED = ("llava", "internvl")


class Front:
    """What comes before the decoder's layers and is no part of the program: vision tower and positions.

    Args:
        hf: transformers' model.
        n_tokens: of a prompt.
        n_new: tokens that may follow it.

    Attributes:
        spliced: whether the program itself embeds the prompt and merges the images in.
    """

    def __init__(self, hf: Any, n_tokens: int, n_new: int) -> None:
        self._hf, self._n_tokens, self._n_new = hf, n_tokens, n_new
        self._decoder: Any = text_decoder(hf)
        self._moving = not counts_tokens(hf)
        self.spliced = hf.config.model_type in _SPLICED
        self._tables: tuple[Tensor, Tensor] | None = None

    def __call__(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The inputs of a program's prefill.

        Args:
            inputs: as `Model.encode` gives them, without padding.

        Returns:
            ids [B, T]; states: image features [n, D] where `spliced`, else the embedded prompt [B, T, D];
            cosines and sines of the prompt's positions and of `n_new` more, [..., B or 1, T + n_new, D_head].
        """
        ids = inputs["input_ids"]
        if self.spliced:
            states = self._features(inputs)
            return ids, states, *self._fixed_tables(states)
        # The mask says nothing without padding, and reading it would make the host wait for the device.
        inputs = {name: value for name, value in inputs.items() if name != "attention_mask"}
        forget_images(self._hf)
        entry = Entry(self._hf, inputs)
        if not self._moving:
            return ids, entry.hidden, *self._fixed_tables(entry.hidden)
        prompt = entry.arguments["position_embeddings"]
        return ids, entry.hidden, *self._with_later(prompt, entry.hidden)

    def _features(self, inputs: dict[str, Tensor]) -> Tensor:
        weight = self._decoder.embed_tokens.weight
        if inputs.get("pixel_values") is None:
            return weight.new_zeros(1, weight.shape[-1])
        output = self._hf.model.get_image_features(pixel_values=inputs["pixel_values"], return_dict=True)
        rows = output.pooler_output
        rows = (
            rows.flatten(0, -2) if isinstance(rows, Tensor) else torch.cat([x.flatten(0, -2) for x in rows])
        )
        return rows.to(weight.device, weight.dtype)

    def _fixed_tables(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Positions that count tokens are the same for every prompt of this length."""
        if self._tables is None:
            places = torch.arange(self._n_tokens + self._n_new, device=like.device)[None]
            self._tables = self._decoder.rotary_emb(like, places)
        return self._tables

    def _with_later(self, prompt: tuple[Tensor, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(self._n_tokens, self._n_tokens + self._n_new, device=like.device)
        places = places.expand(like.shape[0], -1)
        ids = later_positions(self._hf, places).get("position_ids", places.expand(3, -1, -1))
        cos, sin = self._decoder.rotary_emb(like, ids)
        return torch.cat([prompt[0], cos], dim=-2), torch.cat([prompt[1], sin], dim=-2)
