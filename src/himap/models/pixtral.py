"""Pixtral's processor on PIL alone: transformers' own imports torchvision even where only images come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE, BREAK, END = "[IMG]", "[IMG_BREAK]", "[IMG_END]"


@dataclass
class PixtralProcessor:
    """Text with one [IMG] an image -> tokens with a row of [IMG] for each row of patches.

    Attributes:
        image_processor: transformers' PixtralImageProcessorPil.
        tokenizer: knows the three special tokens.
        patch_size: side of a patch in pixels.
        spatial_merge_size: so many patches a side make one token.
        chat_template: in place of the tokenizer's own; None for its own.
    """

    image_processor: Any
    tokenizer: Any
    patch_size: int = 16
    spatial_merge_size: int = 1
    chat_template: str | None = None

    @classmethod
    def from_pretrained(cls, folder: Path, local_files_only: bool = True) -> PixtralProcessor:
        """The processor in a checkpoint's folder."""
        from transformers import AutoTokenizer
        from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

        from himap.models.hub import read_json

        sizes = read_json(folder, "processor_config.json")
        template = folder / "chat_template.json"
        return cls(
            PixtralImageProcessorPil.from_pretrained(folder, local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
            sizes["patch_size"],
            sizes.get("spatial_merge_size", 1),
            read_json(folder, template.name)["chat_template"] if template.exists() else None,
        )

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Names of the parts, as transformers' processors give them."""
        return ["image_processor", "tokenizer"]

    def apply_chat_template(self, turns: Any, chat_template: str | None = None, **options: Any) -> str:
        """The conversation as text, by the given template, the processor's or the tokenizer's."""
        text: str = self.tokenizer.apply_chat_template(
            turns, chat_template=chat_template or self.chat_template, **options
        )
        return text

    def __call__(
        self,
        text: Sequence[str],
        images: Sequence[Image] | None,
        images_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Tokens [B, T], pixels [n, 3, H, W] padded to the largest image, and each image's size in pixels.

        Args:
            text: prompts with [IMG] for each image.
            images: RGB; None without any.
            images_kwargs: as transformers' processors take them; pixels are tensors whatever it says.
            options: of the tokenizer.
        """
        if images is None:
            return {**self.tokenizer(list(text), **options)}
        side = self.patch_size * self.spatial_merge_size
        visual = self.image_processor(list(images), patch_size=side, return_tensors="pt")
        blocks = iter([self.block(height // side, width // side) for height, width in visual["image_sizes"]])
        expanded = [re.sub(re.escape(IMAGE), lambda _: next(blocks), line) for line in text]
        return {**self.tokenizer(expanded, **options), **visual}

    @staticmethod
    def block(n_rows: int, n_columns: int) -> str:
        """The tokens of one image: a break after each row, the last one an end."""
        return BREAK.join([IMAGE * n_columns] * n_rows) + END
