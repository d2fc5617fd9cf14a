"""Batches of images taken apart into single ones and put together again.

Families lay their images out differently: a row an image, padded rows with sizes beside them, or patches of
all images one after the other with a grid for each. What cannot be taken apart soundly is left alone (None).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Arguments = dict[str, "torch.Tensor"]
"""The tensors that `get_image_features` takes, of one image or of several."""

_BY_ROW = ("pixel_values", "image_sizes", "pixel_attention_mask", "batch_num_images")


def split_inputs(tensors: Arguments) -> list[Arguments] | None:
    """The arguments of each image; concatenated along their first axis they are the batch's again.

    Args:
        tensors: all tensors that `get_image_features` is called with.

    Returns:
        one set of arguments an image; None where the layout is none of the known ones.
    """
    pixels, grids = tensors.get("pixel_values"), tensors.get("image_grid_thw")
    if pixels is None or len(pixels) == 0:
        return None
    if grids is not None:
        counts: list[int] = grids.prod(dim=-1).tolist()
        if tensors.keys() != {"pixel_values", "image_grid_thw"} or sum(counts) != len(pixels):
            return None
        patches = pixels.split(counts)
        return [{"pixel_values": p, "image_grid_thw": g[None]} for p, g in zip(patches, grids, strict=True)]
    if not tensors.keys() <= set(_BY_ROW) or any(len(value) != len(pixels) for value in tensors.values()):
        return None
    several = tensors.get("batch_num_images")
    if several is not None and not bool((several == 1).all()):
        return None  # how an image is cut depends on how many its prompt has
    if "image_sizes" not in tensors and pixels.ndim == 5 and bool((pixels == 0).flatten(1).all(dim=1).any()):
        return None  # a prompt without an image, which counts only beside others
    return [{name: value[i : i + 1] for name, value in tensors.items()} for i in range(len(pixels))]


def join_inputs(images: Sequence[Arguments]) -> Arguments:
    """The arguments of several images at once, in their order."""
    import torch

    return {name: torch.cat([image[name] for image in images]) for name in images[0]}


def digest(image: Arguments, settings: Mapping[str, Any]) -> str:
    """SHA-256 of an image's arguments (on the CPU) and the call's other settings.

    Padding up to the largest image of a batch does not count: the same image has one digest in any batch.
    """
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    pixels = image["pixel_values"]
    padded = "image_sizes" in image or pixels.ndim == 5
    for name in sorted(image):
        value = image[name]
        if name in ("pixel_values", "pixel_attention_mask") and padded:
            value = _trimmed(value)
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(raw(value))
    return found.hexdigest()


def _trimmed(value: torch.Tensor) -> torch.Tensor:
    """A tensor without the zeros behind its last values along each axis."""
    for axis in range(value.ndim):
        others = [other for other in range(value.ndim) if other != axis]
        filled = (value != 0).sum(dim=others).nonzero()
        value = value.narrow(axis, 0, int(filled[-1]) + 1 if len(filled) else 0)
    return value


def raw(value: torch.Tensor) -> Any:
    """The bytes of a tensor on the CPU, as an array that hashes read."""
    import torch

    return value.contiguous().flatten().view(torch.uint8).numpy()


def split_features(features: Any, n: int) -> tuple[str, list[list[torch.Tensor]]] | None:
    """Features of `n` images -> their form, and the tensors of each image.

    Returns:
        `tensor`, `rows`, `list` or `tuple`, with `-flat` where deepstack layers hold the images in a row; and
        for each image its tokens [V, D], then those of each deepstack layer. None for another make.
    """
    import torch

    if isinstance(features, torch.Tensor):
        return ("tensor", [[row] for row in features]) if len(features) == n else None
    # Not by key: transformers 5.17 sets it on outputs that have no such field.
    pooled = getattr(features, "pooler_output", None)
    if not isinstance(pooled, torch.Tensor | list | tuple) or len(pooled) != n:
        return None
    form = "rows" if isinstance(pooled, torch.Tensor) else type(pooled).__name__
    if form not in ("rows", "list", "tuple") or any(one.ndim != 2 for one in pooled):
        return None
    layers = list(getattr(features, "deepstack_features", None) or ())
    sizes = [len(one) for one in pooled]
    if layers and all(isinstance(layer, torch.Tensor) and len(layer) == sum(sizes) for layer in layers):
        form, layers = f"{form}-flat", [layer.split(sizes) for layer in layers]
    if any(not isinstance(layer, list | tuple) or len(layer) != n for layer in layers):
        return None
    return form, [[pooled[i], *(layer[i] for layer in layers)] for i in range(n)]


def join_features(form: str, images: Sequence[Sequence[torch.Tensor]]) -> Any:
    """The reverse of `split_features`."""
    import torch

    pooled = [image[0] for image in images]
    if form == "tensor":
        return torch.stack(pooled)
    from himap.features.output import ImageFeatures

    kind, _, flat = form.partition("-")
    made: Any = torch.stack(pooled) if kind == "rows" else tuple(pooled) if kind == "tuple" else pooled
    layers: list[Any] = [tuple(layer) for layer in zip(*(image[1:] for image in images), strict=True)]
    if flat:
        layers = [torch.cat(layer) for layer in layers]
    return ImageFeatures(pooler_output=made, deepstack_features=layers or None)
