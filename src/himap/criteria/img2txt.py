"""Attention from the instruction to the image: which image tokens the question looks at."""

from __future__ import annotations

from torch import Tensor

from himap.criteria.base import RowCriterion
from himap.layout import Counts, Layout


class Img2Txt(RowCriterion):
    """Sum over the instruction rows. Source: HiMAP, Eq. 8 (shallow layers)."""

    name = "img2txt"

    def rows(self, layout: Layout) -> Tensor:
        return layout.instruction

    def n_rows(self, counts: Counts) -> int:
        return counts.n_instruction
