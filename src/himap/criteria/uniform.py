"""Control: image tokens spread evenly over the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from himap.criteria.base import FixedCriterion
from himap.layout import Layout

# Up to 4096 columns or tokens in a line; the order then has 24 bits, which float32 still tells apart.
_BITS = 12


class Uniform(FixedCriterion):
    """The order of Bayer's dither matrix: its first k cells are spread evenly over the grid, for every k.

    Each unbroken run of image tokens is one picture: a square grid where its length is a square, else a line.
    Source: Bayer, "An optimum method for two-level rendition of continuous-tone pictures", 1973.
    """

    name = "uniform"

    def scores(self, layout: Layout, seed: int) -> Tensor:
        place, length = _runs(layout.image)
        side = length.double().sqrt().round().long()
        width = torch.where(side * side == length, side, length).clamp(min=1)
        height = torch.where(side * side == length, side, 1).clamp(min=1)
        # Stretched to 2^12 cells, so that the highest bit halves a grid of any size.
        x, y = (place % width << _BITS) // width, (place // width << _BITS) // height
        order = torch.zeros_like(place)
        # The lowest bits of x and y become the highest of the order: neighbours come far apart in it.
        for bit in range(_BITS):
            x_bit, y_bit = x >> bit & 1, y >> bit & 1
            order = order << 2 | (x_bit ^ y_bit) << 1 | y_bit
        return -order.float()


def _runs(image: Tensor) -> tuple[Tensor, Tensor]:
    """Place within its run and length of that run for every image token, both [B, T] (0 elsewhere)."""
    before = torch.nn.functional.pad(image, (1, 0))[:, :-1]
    run = (image & ~before).cumsum(-1) * image
    count = image.cumsum(-1)
    first = torch.where(image & ~before, count, 0).cummax(-1).values
    length = torch.zeros_like(count).scatter_add(-1, run, image.long()).gather(-1, run)
    return (count - first) * image, length * image
