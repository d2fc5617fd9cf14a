"""Where system, image and instruction tokens sit in a batch of prompts, read from the token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from himap.errors import UserError


class Counts(NamedTuple):
    """Tokens of one sample, by kind; padding is not counted."""

    n_system: int
    n_image: int
    n_instruction: int

    @property
    def n_text(self) -> int:
        """System and instruction tokens: those that are never dropped."""
        return self.n_system + self.n_instruction

    @property
    def n_tokens(self) -> int:
        """All tokens of the sample."""
        return self.n_text + self.n_image


@dataclass(frozen=True, eq=False)
class Layout:
    """Four disjoint boolean masks [B, T] that together cover every position of a batch.

    Attributes:
        system: text before the sample's first image token. A sample without images is all system: nothing in
            it comes after an image.
        image: the placeholders that visual features replace, of all the sample's images.
        instruction: text after the first image token, also between two images.
        padding: positions that hold no token of the sample (left or right).
        fingerprint: [B] int64, a hash of each sample's own tokens; equal for equal prompts however padded.
    """

    system: Tensor
    image: Tensor
    instruction: Tensor
    padding: Tensor
    fingerprint: Tensor

    @classmethod
    def from_ids(
        cls, input_ids: Tensor, image_token_ids: Sequence[int], attention_mask: Tensor | None = None
    ) -> Layout:
        """Read the layout from token ids.

        Args:
            input_ids: [B, T], integers.
            image_token_ids: ids of the placeholders (some models have several).
            attention_mask: [B, T], zero at padding; None where there is no padding.

        Raises:
            UserError: the shapes differ or no placeholder id is given.
        """
        if not image_token_ids:
            raise UserError(
                "image_token_ids=[]: must name a placeholder id (read it off the model's config)."
            )
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise UserError(
                f"attention_mask={tuple(attention_mask.shape)}: must have the shape of input_ids "
                f"{tuple(input_ids.shape)} (pass the two-dimensional padding mask)."
            )
        if attention_mask is None:
            present = torch.ones_like(input_ids, dtype=torch.bool)
        else:
            present = attention_mask.to(input_ids.device).bool()
        # One comparison an id: a tensor of the ids would have to be copied to the device, and waited for.
        image = present & reduce(torch.logical_or, [input_ids == number for number in image_token_ids])
        after_first_image = image.cumsum(-1) > 0
        return cls(
            system=present & ~after_first_image,
            image=image,
            instruction=present & after_first_image & ~image,
            padding=~present,
            fingerprint=_fingerprint(input_ids, present),
        )

    @cached_property
    def _on_host(self) -> list[list[int]]:
        """Per sample the three counts, and 1 where the last token is an image; one wait for the device."""
        masks = (self.system, self.image, self.instruction, self.last & self.image)
        return torch.stack([mask.sum(-1) for mask in masks], dim=-1).tolist()

    @property
    def counts(self) -> list[Counts]:
        """Tokens by kind, one entry a sample."""
        return [Counts(*row[:3]) for row in self._on_host]

    @property
    def ends_with_image(self) -> list[bool]:
        """Whether the sample's last token is an image token, one entry a sample."""
        return [bool(row[3]) for row in self._on_host]

    @property
    def present(self) -> Tensor:
        """[B, T], true where a token of the sample sits."""
        return ~self.padding

    @property
    def last(self) -> Tensor:
        """[B, T], true at each sample's last token."""
        present = self.present
        # Counting from the right, the last token is the first one met.
        return present & (present.flip(-1).cumsum(-1).flip(-1) == 1)


def mix(value: Tensor) -> Tensor:
    """Scramble int64 values so that neighbours become unrelated (the 64-bit finaliser of MurmurHash3).

    Integer arithmetic wraps around alike on every device, so the outcome depends on neither device nor batch.
    """
    # The constants are the published ones, written as signed 64-bit integers; shifts must not drag the sign.
    for multiplier in (-0xAE502812AA7333, -0x3B314601E57A13AD):
        value = (value ^ ((value >> 33) & 0x7FFFFFFF)) * multiplier
    return value ^ ((value >> 33) & 0x7FFFFFFF)


def _fingerprint(input_ids: Tensor, present: Tensor) -> Tensor:
    ordinal = present.cumsum(-1)
    return torch.where(present, mix(input_ids.long() * 0x10001 + ordinal * 0x5DEECE66D), 0).sum(-1)
