"""The size of what is timed: how many prompts of how many tokens, and how long an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A batch of equal prompts and the answer to each.

    Attributes:
        batch_size: prompts at once.
        n_system: text tokens before the image.
        n_image: image tokens.
        n_instruction: text tokens after the image's first token.
        n_new: tokens of an answer; the first comes out of the prefill.
    """

    batch_size: int
    n_system: int
    n_image: int
    n_instruction: int
    n_new: int

    @property
    def key(self) -> str:
        """Names the shape in files: `b1_i576_n16`."""
        return f"b{self.batch_size}_i{self.n_image}_n{self.n_new}"

    @property
    def text(self) -> str:
        """`batch 1, 35 + 576 + 60 tokens, 16 new`."""
        prompt = f"{self.n_system} + {self.n_image} + {self.n_instruction}"
        return f"batch {self.batch_size}, {prompt} tokens, {self.n_new} new"
