"""Attention among image tokens: which of them the other image tokens gather around."""

from __future__ import annotations

from torch import Tensor

from himap.criteria.base import RowCriterion
from himap.layout import Counts, Layout


class Img2Img(RowCriterion):
    """Sum over the image rows still present. Source: HiMAP, Eq. 9 (deep layers).

    As the released code has it: the column's sum with the token's own row. The paper prints the index the
    other way round and says "other" tokens; `exclude_self` leaves the own row out.
    """

    name = "img2img"

    def rows(self, layout: Layout) -> Tensor:
        return layout.image

    def n_rows(self, counts: Counts) -> int:
        return counts.n_image
