"""The vision tower by itself: run once and timed apart, its features given to every strategy alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from himap.errors import Unsupported
from himap.models.base import Model


class _Reached(Exception):
    """The features are there; the decoder need not run."""


@contextmanager
def given_features(model: Model, inputs: dict[str, Tensor]) -> Iterator[Callable[[], Any]]:
    """Let the model find the image features of these inputs ready while the block lasts.

    Args:
        model: a loaded model.
        inputs: an encoded batch.

    Yields:
        a function that runs the vision tower and the projector on the inputs' pixels.

    Raises:
        Unsupported: the model does not tell its vision tower from its decoder.
    """
    hf = model.hf
    places = (getattr(hf, "model", None), hf)
    owner: Any = next((place for place in places if hasattr(place, "get_image_features")), None)
    if owner is None:
        raise Unsupported(f"model={model.name}: its vision tower cannot be timed apart from its decoder.")
    compute = owner.get_image_features
    call: tuple[Any, dict[str, Any]] = (), {}

    def run() -> Any:
        args, kwargs = call
        with torch.inference_mode():
            return compute(*args, **kwargs)

    def reached(*args: Any, **kwargs: Any) -> Any:
        nonlocal call
        call = args, kwargs
        raise _Reached

    owner.get_image_features = reached
    try:
        try:
            with torch.inference_mode():
                hf(**inputs, use_cache=False, logits_to_keep=1)
        except _Reached:
            pass
        features = run()
        owner.get_image_features = lambda *args, **kwargs: features
        yield run
    finally:
        del owner.get_image_features
