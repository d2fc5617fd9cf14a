"""Loads a model for an evaluation; the jobs of a multirun share what they have in common."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from himap.config import HardwareConfig, ModelConfig, TaskConfig
from himap.result import digest

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.reuse import Reuse

# By what they were made from; one of each, for a second model may not fit beside the first.
_models: dict[str, Model] = {}
_reuses: dict[str, Reuse] = {}


def load(
    model: ModelConfig, hardware: HardwareConfig, task: TaskConfig, weights: Any, *, within: str | None
) -> tuple[Model, Reuse]:
    """The model, on the device, and what is kept of its encoded prompts and image features.

    Args:
        model: which.
        hardware: where.
        task: what it will be asked; another task shares the model alone.
        weights: their fingerprint.
        within: a multirun's folder; what is loaded is kept for its next job. None keeps nothing.

    Raises:
        UserError: the device, the weights or what they need is missing.
    """
    from himap import models
    from himap.features import open_cache
    from himap.hardware import prepare
    from himap.reuse import Reuse

    prepare(hardware)
    made = {"within": within, "model": asdict(model), "hardware": asdict(hardware), "weights": weights}
    key = digest(made)
    about = digest({"model": key, "task": asdict(task)})
    if about not in _reuses:
        _reuses.clear()
    if key not in _models:
        _models.clear()
    loaded = _models.get(key) or models.load(model, hardware)
    limit = 0 if within is None else hardware.reuse_mib
    reuse = _reuses.get(about) or Reuse(limit, open_cache(model, hardware, weights))
    if within is not None:
        _models[key], _reuses[about] = loaded, reuse
    return loaded, reuse
