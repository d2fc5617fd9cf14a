"""Prompts whose pieces are tokenised one by one, with a block of placeholders for each image between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from himap.models.base import Model

if TYPE_CHECKING:
    import torch

    from himap.tasks.base import Prompt

IMAGE = "<image>"
"""Stands for an image in `Spliced.format`, which people read; no piece is found by searching for it."""


@dataclass
class Spliced(Model):
    """A model that the original code feeds piece by piece: text, image, text, ...

    Attributes:
        n_image_tokens: placeholders for one image.
        image_processor: PIL images -> `pixel_values`.
        bos: ids that begin a prompt.
    """

    n_image_tokens: int = 0
    image_processor: Any = None
    bos: tuple[int, ...] = ()

    def pieces(self, prompt: Prompt) -> list[str]:
        """The prompt's text around its images: one piece more than there are images."""
        raise NotImplementedError

    def format(self, prompt: Prompt) -> str:
        return IMAGE.join(self.pieces(prompt))

    def piece_ids(self, piece: str) -> list[int]:
        """Tokens of one piece, without anything put in front."""
        ids: list[int] = self.processor.tokenizer.encode(piece, add_special_tokens=False)
        return ids

    def ids(self, prompt: Prompt) -> list[int]:
        """All tokens of a prompt."""
        first, *rest = self.pieces(prompt)
        row = [*self.bos, *self.piece_ids(first)]
        for piece in rest:
            row += [self.image_token_ids[0]] * self.n_image_tokens + self.piece_ids(piece)
        return row

    def encode(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        import torch

        rows = [self.ids(prompt) for prompt in prompts]
        width = max(map(len, rows))
        pad = self.processor.tokenizer.pad_token_id
        batch = {
            "input_ids": torch.tensor([[pad] * (width - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
        }
        images = [image for prompt in prompts for image in prompt.images]
        if images:
            batch["pixel_values"] = self.image_processor(images, return_tensors="pt")["pixel_values"]
        return {key: self._place(value) for key, value in batch.items()}
