"""The cache itself: asks the vision tower only for images that no run with this model has shown it."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import himap
from himap.config import HardwareConfig, ModelConfig
from himap.errors import UserError
from himap.features.images import digest, join_features, join_inputs, split_features, split_inputs
from himap.features.repeated import named_arguments
from himap.features.store import Entry, Store
from himap.files import write_json
from himap.result import digest as digest_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class FeatureCache:
    """Image features of one model on disk, by image.

    Args:
        folder: shared by all models and processes.
        model: all that makes the model's features what they are, besides the image; see `open_cache`.
        limit_mib: of all that lies in the folder.

    Raises:
        UserError: nothing can be written into the folder.
    """

    def __init__(self, folder: Path, model: Mapping[str, Any], limit_mib: float) -> None:
        own = folder / digest_of(model)[:16]
        try:
            own.mkdir(parents=True, exist_ok=True)
            if not (own / "model.json").exists():
                write_json(own / "model.json", model)
        except OSError as error:
            raise UserError(
                f"hardware.feature_cache={folder}: cannot be written ({error}; give another folder, or null)."
            ) from error
        self._store = Store(own, folder, limit_mib)
        self._said = False

    def features(self, compute: Callable[..., Any], defaults: Any, *args: Any, **kwargs: Any) -> Any:
        """What `compute(*args, **kwargs)` gives; the tower sees only images that are not in the cache.

        Args:
            compute: a model's `get_image_features`.
            defaults: the model's config, whose values stand for arguments that are not given.
        """
        given, tensors = named_arguments(compute, args, kwargs)
        settings = {
            name: value
            for name, value in given.items()
            if name not in tensors and value is not None and getattr(defaults, name, None) != value
        }
        keys = _keys(tensors, settings)
        if keys is None:
            return self._uncached("its images cannot be told apart", compute, args, kwargs)
        found = self._store.get(keys)
        if not found:
            # As it was asked: bit by bit what the model gives without a cache.
            whole = compute(*args, **kwargs)
            split = split_features(whole, len(keys))
            if split is None:
                self._say_uncached("its features cannot be told apart", compute)
                return whole
            self._store.put({key: (split[0], parts) for key, parts in zip(keys, split[1], strict=True)})
            return join_features(*split)
        missing = dict.fromkeys(key for key in keys if key not in found)
        if missing:
            images = dict(zip(keys, split_inputs(tensors) or (), strict=True))
            others = {name: value for name, value in given.items() if name not in tensors}
            split = split_features(
                compute(**join_inputs([images[key] for key in missing]), **others), len(missing)
            )
            if split is None:
                return self._uncached("its features cannot be told apart", compute, args, kwargs)
            new: dict[str, Entry] = {
                key: (split[0], parts) for key, parts in zip(missing, split[1], strict=True)
            }
            self._store.put(new)
            found |= new
        device = tensors["pixel_values"].device
        parts = [[tensor.to(device) for tensor in found[key][1]] for key in keys]
        return join_features(found[keys[0]][0], parts)

    def flush(self) -> None:
        """Write what is not on disk yet."""
        self._store.flush()

    def _uncached(
        self, reason: str, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._say_uncached(reason, compute)
        return compute(*args, **kwargs)

    def _say_uncached(self, reason: str, compute: Callable[..., Any]) -> None:
        if not self._said:
            self._said = True
            name = type(getattr(inspect.unwrap(compute), "__self__", compute)).__name__
            log.warning(
                "hardware.feature_cache: some batches of %s are computed each time: %s.", name, reason
            )


def open_cache(model: ModelConfig, hardware: HardwareConfig, weights: str | None) -> FeatureCache | None:
    """The cache that the configuration names; None without one.

    Args:
        model: path, revision and options are part of the key, and versions: himap's, torch's, transformers'.
        hardware: dtype and kind of device are part of the key, too.
        weights: fingerprint of the weights, where there is one.
    """
    if hardware.feature_cache is None:
        return None
    key = {
        "adapter": model.adapter,
        "path": model.path,
        "revision": model.revision,
        "weights": weights or model.weights,
        "options": model.options,
        "dtype": hardware.dtype,
        "device": hardware.device.partition(":")[0],
        "himap": himap.__version__,
        "torch": metadata.version("torch"),
        "transformers": metadata.version("transformers"),
    }
    return FeatureCache(Path(hardware.feature_cache).expanduser(), key, hardware.feature_cache_mib)


def _keys(tensors: dict[str, torch.Tensor], settings: Mapping[str, Any]) -> list[str] | None:
    """A digest for each image; None where they cannot be told apart or a setting has no written form."""
    if settings.get("return_dict") is False:
        return None
    settings = {name: value for name, value in settings.items() if name != "return_dict"}
    try:
        json.dumps(settings)
    except TypeError:
        return None
    images = split_inputs({name: value.detach().cpu() for name, value in tensors.items()})
    return None if images is None else [digest(image, settings) for image in images]
