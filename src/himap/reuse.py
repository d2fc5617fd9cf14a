"""What does not depend on the strategy is computed once: encoded prompts and the features of their images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from himap.features.repeated import Once

if TYPE_CHECKING:
    from himap.features import FeatureCache
    from himap.tasks.base import Prompt

Inputs = tuple[Sequence["Prompt"], dict[str, Any]]
"""Prompts and the encoded batch made of them."""


class Reuse:
    """Keeps encoded batches and image features between evaluations of one model on the same samples.

    Args:
        limit_mib: memory that may be taken; what comes after it is full is computed each time.
        cache: image features on disk, for what is not in memory.
    """

    def __init__(self, limit_mib: float, cache: FeatureCache | None = None) -> None:
        self._cache = cache
        self._free = int(limit_mib * 2**20)
        self._inputs: dict[Hashable, Inputs] = {}
        # By the identity of the pixel tensors in `_inputs`, which live as long as this object.
        self._features: dict[tuple[int, Any], Any] = {}
        self._known: set[int] = set()

    def inputs(self, key: Hashable, make: Callable[[], Inputs]) -> Inputs:
        """The inputs known as `key`, made where they are not kept."""
        kept = self._inputs.get(key)
        if kept is None:
            kept = make()
            if self._take(kept[1]):
                self._inputs[key] = kept
                self._known |= {id(value) for value in kept[1].values()}
        return kept

    @contextmanager
    def attached(self, hf: Any) -> Iterator[None]:
        """Let the model look up its image features: of batches that `inputs` has kept, and on disk.

        Args:
            hf: transformers' model; one without `get_image_features` is left alone.
        """
        owner = next((m for m in (getattr(hf, "model", None), hf) if hasattr(m, "get_image_features")), None)
        if owner is None:
            yield
            return
        encode = owner.get_image_features
        each = Once(encode)

        def compute(*args: Any, **kwargs: Any) -> Any:
            if self._cache is None:
                return each(*args, **kwargs)
            return self._cache.features(each, owner.config, *args, **kwargs)

        # `generate` reads the signature to tell which of its arguments the encoder takes.
        @functools.wraps(encode)
        def look_up(*args: Any, **kwargs: Any) -> Any:
            pixels = args[0] if args else kwargs.get("pixel_values")
            if id(pixels) not in self._known:
                return compute(*args, **kwargs)
            key = (id(pixels), kwargs.get("return_dict"))
            if key not in self._features:
                features = _slim(compute(*args, **kwargs))
                if not self._take(features):
                    return features
                self._features[key] = features
            return _slim(self._features[key])

        owner.get_image_features = look_up
        try:
            yield
        finally:
            del owner.get_image_features
            if self._cache is not None:
                self._cache.flush()

    def _take(self, value: Any) -> bool:
        """Whether there is room for a value; takes it."""
        size = _n_bytes(value)
        if size > self._free:
            return False
        self._free -= size
        return True


def _slim(features: Any) -> Any:
    """Features without the tower's inner states, which transformers returns beside them and nobody reads.

    An object of its own each time, for beam search writes repeated ones into what it gets.
    """
    pooled = getattr(features, "pooler_output", None)
    if pooled is None:
        return features
    from himap.features.output import ImageFeatures

    return ImageFeatures(
        pooler_output=pooled, deepstack_features=getattr(features, "deepstack_features", None)
    )


def _n_bytes(value: Any) -> int:
    """Memory of the tensors inside nested lists, tuples and mappings; what they share counts once."""
    return sum({storage.data_ptr(): int(storage.nbytes()) for storage in _storages(value)}.values())


def _storages(value: Any) -> Iterator[Any]:
    if hasattr(value, "untyped_storage"):
        yield value.untyped_storage()
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _storages(inner)
