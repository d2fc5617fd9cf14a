"""What a criterion is: the query rows whose attention ranks the image tokens, or a score without any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from himap.layout import Counts, Layout


class RowCriterion(ABC):
    """Ranks image tokens by the attention that the chosen query rows pay to them; higher is kept.

    Attributes:
        name: the name in the configuration.
    """

    name: ClassVar[str]

    @abstractmethod
    def rows(self, layout: Layout) -> Tensor:
        """Query rows to sum over, [B, T] bool, among all tokens of the prompt (dropped ones fall out)."""

    @abstractmethod
    def n_rows(self, counts: Counts) -> int:
        """How many rows `rows` marks in a sample that now has these tokens; saves asking the device."""


class FixedCriterion(ABC):
    """Ranks image tokens without looking at attention: a control; higher is kept.

    Attributes:
        name: the name in the configuration.
    """

    name: ClassVar[str]

    @abstractmethod
    def scores(self, layout: Layout, seed: int) -> Tensor:
        """Score of every position of the prompt, [B, T] float32; only image tokens' scores are read."""


Criterion = RowCriterion | FixedCriterion
