"""Prompts of exact sizes out of thin air: random text around random pictures, in the model's own layout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

from himap.errors import UserError
from himap.latency.shape import Shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from himap.layout import Counts
    from himap.models.base import Model

Inputs = dict[str, "Tensor"]

_TYPICAL = (640, 480)
"""The picture for which conf/model counts image tokens where their number depends on it."""

_LONGEST = 20
"""Width over height that every processor takes."""


def made_up(model: Model, shape: Shape, seed: int) -> Inputs:
    """An encoded batch with exactly the shape's tokens in every row, without padding.

    The placeholders, and the text right beside them, are as the model's own `encode` sets them; text and
    pixels are random.

    Raises:
        UserError: the model gives no such number of image tokens, or needs more text around them.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    inputs = _fit(model, _pictured(model, shape), shape, generator)
    for name, value in inputs.items():
        if name.startswith("pixel_values"):
            noise = torch.randn(value.shape, generator=generator)
            inputs[name] = noise.to(value.device, value.dtype)
    wanted = (shape.n_system, shape.n_image, shape.n_instruction)
    if any(count != wanted for count in _counts(model, inputs)):
        raise _no_such_number(model, shape, _counts(model, inputs)[0].n_image)
    return inputs


def answers(model: Model, shape: Shape, seed: int) -> Tensor:
    """Ids of made-up answers, [n_new, B, 1]: what a model of random weights says could be a placeholder."""
    import torch

    generator = torch.Generator().manual_seed(seed + 1)
    return _words(model, shape.n_new * shape.batch_size, generator).view(shape.n_new, -1, 1).to(model.device)


def _pictured(model: Model, shape: Shape) -> Inputs:
    """A batch with the wanted image tokens, whatever the text around them."""
    found = []
    for size in _sizes(model, shape.n_image):
        inputs = _encode(model, size, 1, shape.batch_size)
        found.append(_counts(model, inputs)[0].n_image)
        n_pictures, left = divmod(shape.n_image, found[-1])
        if left == 0 and n_pictures == 1:
            return inputs
        if left == 0 and inputs["pixel_values"].ndim == 4 and not _merge(model):
            return _repeat(model, inputs, n_pictures)
        if left == 0:  # pictures are told apart by what stands around them, or lie along an axis of their own
            return _encode(model, size, n_pictures, shape.batch_size)
    raise _no_such_number(model, shape, found[0])


def _sizes(model: Model, n_image: int) -> Iterator[tuple[int, int]]:
    """Width and height, in pixels, of pictures that may have the wanted number of tokens, or a part of it."""
    config: Any = model.hf.config
    vision: Any = getattr(config, "vision_config", None)
    if merge := _merge(model):
        cell = merge * vision.patch_size
        rows = next(n for n in range(math.isqrt(n_image), 0, -1) if n_image % n == 0)
        if n_image <= _LONGEST * rows**2:
            yield n_image // rows * cell, rows * cell
    side = getattr(vision, "image_size", None) or getattr(config, "visual", {}).get("image_size")
    if side:
        height, width = side if isinstance(side, list | tuple) else (side, side)
        yield width, height
    yield _TYPICAL


def _merge(model: Model) -> int | None:
    """Where a picture of any sides has one token for a square of patches: the patches along its side."""
    config: Any = model.hf.config
    vision: Any = getattr(config, "vision_config", None)
    return getattr(config, "spatial_merge_size", None) or getattr(vision, "spatial_merge_size", None)


def _encode(model: Model, size: tuple[int, int], n_pictures: int, batch_size: int) -> Inputs:
    from himap.tasks.base import Prompt

    pictures = tuple(Image.new("RGB", size) for _ in range(n_pictures))
    return model.encode([Prompt("Describe the picture.", pictures)] * batch_size)


def _repeat(model: Model, inputs: Inputs, times: int) -> Inputs:
    """The same with each row's image several times, one behind the other."""
    import torch

    first, last = _image_span(model, inputs)
    ids = inputs["input_ids"]
    repeated = {}
    for name, value in inputs.items():
        if value.shape == ids.shape:
            image = value[:, first : last + 1].repeat(1, times)
            repeated[name] = torch.cat([value[:, :first], image, value[:, last + 1 :]], dim=1)
        else:
            repeated[name] = value.repeat(times, *(1 for _ in value.shape[1:]))
    return repeated


def _fit(model: Model, inputs: Inputs, shape: Shape, generator: torch.Generator) -> Inputs:
    """Random text before and after the image, as much as is wanted; its nearest tokens stay."""
    import torch

    first, last = _image_span(model, inputs)
    n_after = inputs["input_ids"].shape[1] - last - 1
    between = _counts(model, inputs)[0].n_instruction - n_after
    wanted = shape.n_instruction - between
    if wanted < 1:
        raise UserError(
            f"model.architecture.n_instruction={shape.n_instruction}: must be at least {between + 1} "
            f"(text must follow the image, and {between} tokens of it stand between the image tokens)."
        )
    # What may mark where an image begins and ends.
    before, after = min(1, first, shape.n_system), min(1, n_after)
    n_rows = shape.batch_size
    fitted = {}
    for name, value in inputs.items():
        if value.shape != inputs["input_ids"].shape:
            fitted[name] = value
            continue

        def fill(n: int, name: str = name, value: Tensor = value) -> Tensor:
            if name == "input_ids":
                return _words(model, n_rows * n, generator).view(n_rows, n).to(value)
            # The attention mask marks every token, the kinds of tokens are 0 for text.
            return value.new_full((n_rows, n), int(name == "attention_mask"))

        kept = value[:, first - before : last + 1 + after]
        fitted[name] = torch.cat([fill(shape.n_system - before), kept, fill(wanted - after)], dim=1)
    return fitted


def _words(model: Model, n: int, generator: torch.Generator) -> Tensor:
    """Random ids of plain text, [n]: below the placeholders, no special tokens."""
    import torch

    special = {*model.image_token_ids, *getattr(model.processor.tokenizer, "all_special_ids", ())}
    rows = model.hf.get_input_embeddings().weight.shape[0]
    plain = [number for number in range(min(rows, 10_000)) if number not in special]
    return torch.tensor(plain)[torch.randint(len(plain), (n,), generator=generator)]


def _counts(model: Model, inputs: Inputs) -> list[Counts]:
    from himap.layout import Layout

    layout = Layout.from_ids(inputs["input_ids"], model.image_token_ids, inputs.get("attention_mask"))
    return layout.counts


def _image_span(model: Model, inputs: Inputs) -> tuple[int, int]:
    """First and last image token of the rows, which are alike."""
    row = inputs["input_ids"][0].tolist()
    places = [place for place, number in enumerate(row) if number in model.image_token_ids]
    return places[0], places[-1]


def _no_such_number(model: Model, shape: Shape, found: int) -> UserError:
    return UserError(
        f"benchmark.n_image={shape.n_image}: {model.name} gives {found} image tokens a picture (choose a "
        "multiple of that, or another model)."
    )
