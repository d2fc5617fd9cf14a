"""Images that a batch holds several times go through the vision tower once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from himap.features.images import Arguments, join_features, join_inputs, split_features, split_inputs

if TYPE_CHECKING:
    import torch


def named_arguments(
    compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Everything that a call passes on, by name; and those of it that are tensors."""
    import torch

    bound = inspect.signature(compute).bind(*args, **kwargs)
    given: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            given |= value
        else:
            given[name] = value
    return given, {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}


class Once:
    """A model's `get_image_features` that computes equal images of a call once.

    Then they have the same features bit by bit, which a tower need not give them in different rows.

    Args:
        compute: the model's own; called as it was asked where images or features cannot be told apart.
    """

    def __init__(self, compute: Callable[..., Any]) -> None:
        functools.update_wrapper(self, compute)
        self._compute = compute
        self._divides = True  # until it gives features that cannot be told apart

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given, tensors = named_arguments(self._compute, args, kwargs)
        images = split_inputs(tensors) if self._divides else None
        firsts = [] if images is None else _firsts(images)
        rows = sorted(set(firsts))
        if images is None or len(rows) == len(images):
            return self._compute(*args, **kwargs)
        once = join_inputs([images[row] for row in rows])
        split = split_features(self._compute(**{**given, **once}), len(rows))
        if split is None:
            self._divides = False
            return self._compute(*args, **kwargs)
        form, features = split
        return join_features(form, [features[rows.index(first)] for first in firsts])


def _firsts(images: Sequence[Arguments]) -> list[int]:
    """For each image the number of the first one that equals it: [a, b, a] is [0, 1, 0]."""
    import torch

    # Sums tell most images apart; one wait for the device, not one an image.
    sums = torch.stack([image["pixel_values"].sum(dtype=torch.float64) for image in images]).tolist()
    marks = [
        (total, *(value.shape for value in one.values())) for total, one in zip(sums, images, strict=True)
    ]
    like = [marks.index(mark) for mark in marks]
    pairs = [(row, first) for row, first in enumerate(like) if row != first]
    if pairs:
        same = torch.stack([_equal(images[row], images[first]) for row, first in pairs]).tolist()
        for (row, _), equal in zip(pairs, same, strict=True):
            like[row] = like[row] if equal else row
    return like


def _equal(one: Arguments, other: Arguments) -> torch.Tensor:
    """Whether two images of the same shapes are the same, a bool on their device."""
    import torch

    device = one["pixel_values"].device
    return torch.stack([(one[name] == other[name]).all().to(device) for name in one]).all()
