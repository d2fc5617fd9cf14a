"""Where image tokens sit in their image: grids of cells, for pictures and for position statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from himap.models.base import Model
    from himap.tasks.base import Prompt


@dataclass(frozen=True)
class Grid:
    """A block of neighbouring image tokens, row by row.

    Attributes:
        image: which of the prompt's images, from 0.
        rows: cells from top to bottom.
        columns: cells from left to right.
        box: left, top, right, bottom in the image, as shares of its width and height (beyond 0 and 1 where
            the image was padded); None where the place of the tokens is not known.
    """

    image: int
    rows: int
    columns: int
    box: tuple[float, float, float, float] | None

    @property
    def n_cells(self) -> int:
        return self.rows * self.columns


_WHOLE = (0.0, 0.0, 1.0, 1.0)


def grids(model: Model, prompts: Sequence[Prompt], inputs: dict[str, Tensor]) -> list[list[Grid]]:
    """The grids of each prompt of a batch, in the order of its image tokens.

    Known are: grids that the processor tells (`image_grid_thw`), one square a picture, and square tiles of
    `image_seq_length` tokens with an overview behind them. Other tokens become a line without a place.
    """
    if "image_grid_thw" in inputs:
        merge = model.hf.config.vision_config.spatial_merge_size
        shapes = iter(inputs["image_grid_thw"].tolist())
        found = []
        for prompt in prompts:
            sizes = [next(shapes) for _ in prompt.images]
            found.append([Grid(i, h // merge, w // merge, _WHOLE) for i, (_, h, w) in enumerate(sizes)])
        return found
    image = sum((inputs["input_ids"] == one).long() for one in model.image_token_ids)
    assert not isinstance(image, int)
    return [_one(model, prompt, int(n)) for prompt, n in zip(prompts, image.sum(-1).tolist(), strict=True)]


def _one(model: Model, prompt: Prompt, n_tokens: int) -> list[Grid]:
    n, rest = divmod(n_tokens, max(1, len(prompt.images)))
    if rest:
        return [Grid(0, 1, n_tokens, None)]
    found = []
    for number, picture in enumerate(prompt.images):
        aspect = picture.width / picture.height
        side, tile = math.isqrt(n), getattr(model.hf.config, "image_seq_length", 0)
        if side * side == n:
            found.append(Grid(number, side, side, _square_box(model, aspect)))
        elif tile and n % tile == 0 and math.isqrt(tile) ** 2 == tile:
            found += _tiles(number, n // tile - 1, math.isqrt(tile), aspect)
        else:
            found.append(Grid(number, 1, n, None))
    return found


def _square_box(model: Model, aspect: float) -> tuple[float, float, float, float]:
    """The part of the image that a square input shows: padded, cropped, or stretched."""
    processor: Any = getattr(model, "image_processor", None) or getattr(
        model.processor, "image_processor", None
    )
    if getattr(processor, "do_pad", False):
        width, height = max(1.0, 1 / aspect), max(1.0, aspect)
    elif getattr(processor, "do_center_crop", False):
        width, height = min(1.0, 1 / aspect), min(1.0, aspect)
    else:
        return _WHOLE
    return (0.5 - width / 2, 0.5 - height / 2, 0.5 + width / 2, 0.5 + height / 2)


def _tiles(number: int, n_tiles: int, side: int, aspect: float) -> list[Grid]:
    """Tiles in the arrangement nearest to the image's shape, then the overview."""
    shapes = [(n_tiles // rows, rows) for rows in range(1, n_tiles + 1) if n_tiles % rows == 0]
    columns, rows = min(shapes, key=lambda shape: abs(shape[0] / shape[1] - aspect))
    found = [
        Grid(number, side, side, (x / columns, y / rows, (x + 1) / columns, (y + 1) / rows))
        for y in range(rows)
        for x in range(columns)
    ]
    return [*found, Grid(number, side, side, _WHOLE)]
