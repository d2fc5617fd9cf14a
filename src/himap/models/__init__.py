"""Model adapters, one file each, behind one loader."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from himap.rules import one_of

if TYPE_CHECKING:
    from himap.config import HardwareConfig, ModelConfig
    from himap.models.base import Model

ADAPTERS = {
    "shapes": "himap.models.shapes",
    "llava": "himap.models.llava",
    "internvl_chat": "himap.models.internvl_chat",
    "qwen_vl_chat": "himap.models.qwen_vl_chat",
    "native": "himap.models.native",
}
"""Adapter -> module with a function `load(config, hardware) -> Model`."""


def load(config: ModelConfig, hardware: HardwareConfig) -> Model:
    """Load a model onto the device, ready to answer.

    Raises:
        ConfigError: the adapter is unknown.
        UserError: the weights are missing or do not fit.
    """
    one_of("model.adapter", config.adapter, tuple(ADAPTERS))
    from himap.models.once import EachOnce

    model: Model = import_module(ADAPTERS[config.adapter]).load(config, hardware)
    holder: Any
    for holder in (model, model.processor):
        if getattr(holder, "image_processor", None) is not None:
            holder.image_processor = EachOnce(holder.image_processor)
    return model
