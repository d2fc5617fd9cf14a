"""Which tokens of a batch are present while a prefill runs through the stages; how a stage shrinks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from himap.attention import right_align
from himap.layout import Counts, Layout
from himap.strategy import Stage


@dataclass(frozen=True, eq=False)
class Selection:
    """The tokens present between two stages; samples are right-aligned once a stage has dropped something.

    Attributes:
        positions: [B, n], columns of the prompt in ascending order. Where `valid` is false: any column.
        valid: [B, n] bool, false where a sample has fewer than n tokens; None where all are tokens.
        counts: tokens by kind, one entry a sample.
        dropped: whether a stage has dropped anything yet; before that, the model's own arguments hold.
    """

    positions: Tensor
    valid: Tensor | None
    counts: list[Counts]
    dropped: bool = False

    @classmethod
    def whole(cls, layout: Layout) -> Selection:
        """All tokens of the prompt, as the model got them."""
        n_batch, n_tokens = layout.image.shape
        positions = torch.arange(n_tokens, device=layout.image.device).expand(n_batch, -1)
        padded = any(count.n_tokens < n_tokens for count in layout.counts)
        return cls(positions, layout.present if padded else None, layout.counts)

    def pick(self, mask: Tensor) -> Tensor:
        """A mask over the prompt, [B, T], as one over the tokens present, [B, n]."""
        here = mask.gather(-1, self.positions)
        return here if self.valid is None else here & self.valid

    def drops(self, stage: Stage) -> bool:
        """Whether the stage drops a token of any sample; knows it from the counts alone."""
        return any(stage.n_kept(count.n_image) < count.n_image for count in self.counts)

    def after(self, stage: Stage, scores: Tensor, layout: Layout) -> tuple[Selection, Tensor]:
        """Keep the best-scored image tokens and all text.

        Args:
            stage: how many to keep.
            scores: [B, n]; of equal scores the earlier token is kept.
            layout: of the prompt.

        Returns:
            The smaller selection, and the indices [B, n'] into this one that make it.
        """
        device = scores.device
        image = self.pick(layout.image)
        text = self.pick(~layout.image)
        counts = [count._replace(n_image=stage.n_kept(count.n_image)) for count in self.counts]
        order = scores.masked_fill(~image, float("-inf")).argsort(dim=-1, descending=True, stable=True)
        rank = torch.arange(scores.shape[-1], device=device)
        best = rank < _per_sample([count.n_image for count in counts], device)
        keep = text | torch.zeros_like(image).scatter(-1, order, best.expand_as(image))
        totals = [count.n_tokens for count in counts]
        width = max(totals)
        index = right_align(keep, width)
        valid = None
        if min(totals) < width:
            valid = torch.arange(width, device=device) >= width - _per_sample(totals, device)
        return Selection(self.positions.gather(-1, index), valid, counts, dropped=True), index


def stacked(selections: Sequence[Selection]) -> Selection:
    """Selections with the same numbers of tokens, one below the other: [S * B, n]."""
    masks = [one.valid for one in selections if one.valid is not None]
    return Selection(
        torch.cat([one.positions for one in selections]),
        torch.cat(masks) if masks else None,
        [count for one in selections for count in one.counts],
        dropped=True,
    )


def _per_sample(values: list[int], device: torch.device) -> Tensor:
    """[B, 1], or [1, 1] where all are equal, so that the usual batch copies nothing to the device."""
    if len(set(values)) == 1:
        return torch.full((1, 1), values[0], device=device)
    return torch.tensor(values, device=device)[:, None]


def gather_tokens(x: Tensor, positions: Tensor) -> Tensor:
    """Tokens of x at `positions`.

    Args:
        x: [..., B or 1, T, D].
        positions: [B, n].

    Returns:
        [..., B, n, D].
    """
    positions = positions.to(x.device)
    n_batch = positions.shape[0]
    x = x.expand(*x.shape[:-3], n_batch, *x.shape[-2:])
    return x[..., torch.arange(n_batch, device=x.device)[:, None], positions, :]
