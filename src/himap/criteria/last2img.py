"""Attention from the prompt's last token to the image."""

from __future__ import annotations

from torch import Tensor

from himap.criteria.base import RowCriterion
from himap.layout import Counts, Layout


class Last2Img(RowCriterion):
    """The last prompt row alone: FastV as every released variant computes it."""

    name = "last2img"

    def rows(self, layout: Layout) -> Tensor:
        return layout.last

    def n_rows(self, counts: Counts) -> int:
        return 1
