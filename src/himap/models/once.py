"""An image that several prompts of a batch ask about is preprocessed once."""

from __future__ import annotations

from typing import Any

from himap.features.images import Arguments, join_inputs, split_inputs


class EachOnce:
    """An image processor that sees an image once in a call, however often the call names it.

    Prompts about one picture are given the same object; other objects are other images, whatever they show.

    Args:
        processor: transformers' image processor; everything but the call is its own.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._divides = True  # until the processor gives something that images cannot be told apart in

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, images: Any, **options: Any) -> Any:
        """As the processor's; `images` are PIL images or lists of them, one a prompt."""
        import torch

        listed = list(images) if isinstance(images, list | tuple) else [images]
        # By identity: comparing pixels would cost what it is to spare.
        names = [tuple(map(id, one)) if isinstance(one, list | tuple) else id(one) for one in listed]
        once = list(dict.fromkeys(names))
        if len(once) == len(names) or not self._divides:
            return self._processor(images, **options)
        made = self._processor([listed[names.index(name)] for name in once], **options)
        tensors = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
        # What is no tensor (how many tiles an image was cut into) lists the images.
        lists = {name: value for name, value in made.items() if name not in tensors}
        parts = _tiles(tensors) or split_inputs(tensors)
        if any(part is None or len(part) != len(once) for part in (parts, *lists.values())):
            self._divides = False
            return self._processor(images, **options)
        assert parts is not None
        places = [once.index(name) for name in names]
        made.update(join_inputs([parts[place] for place in places]))
        made.update({name: [value[place] for place in places] for name, value in lists.items()})
        return made


def _tiles(tensors: Arguments) -> list[Arguments] | None:
    """The tiles of each image, where all lie in a row with their numbers beside them (InternVL)."""
    if tensors.keys() != {"pixel_values", "num_patches"}:
        return None
    counts = tensors["num_patches"]
    pixels = tensors["pixel_values"].split(counts.tolist())
    return [{"pixel_values": p, "num_patches": n[None]} for p, n in zip(pixels, counts, strict=True)]
