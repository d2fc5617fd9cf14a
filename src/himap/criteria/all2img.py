"""Attention from every token to the image."""

from __future__ import annotations

from torch import Tensor

from himap.criteria.base import RowCriterion
from himap.layout import Counts, Layout


class All2Img(RowCriterion):
    """Sum over all rows: FastV as its paper describes it (a mean over all tokens, which ranks alike)."""

    name = "all2img"

    def rows(self, layout: Layout) -> Tensor:
        return layout.present

    def n_rows(self, counts: Counts) -> int:
        return counts.n_tokens
