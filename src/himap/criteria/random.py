"""Control: a random choice of image tokens."""

from __future__ import annotations

from torch import Tensor

from himap.criteria.base import FixedCriterion
from himap.layout import Layout, mix


class Random(FixedCriterion):
    """A seeded hash of the prompt and the image token's ordinal in it.

    A hash instead of a generator: every prompt draws its own tokens, the same in any batch, on any device.
    """

    name = "random"

    def scores(self, layout: Layout, seed: int) -> Tensor:
        ordinal = layout.image.cumsum(-1)
        return mix(mix(layout.fingerprint + seed)[:, None] + ordinal).float()
