"""Who writes the tiny checkpoint of which adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from published import write_internvl, write_llava, write_qwen
from shrunk import configured, write_native

from himap.config import ModelConfig

WRITERS: dict[str, Callable[[str, Path], ModelConfig]] = {
    "llava": lambda name, folder: write_llava(folder, name),
    "internvl_chat": lambda name, folder: write_internvl(folder),
    "qwen_vl_chat": lambda name, folder: write_qwen(folder),
    "native": write_native,
    # Its weights are in the package; random ones serve here and need no training.
    "shapes": lambda name, folder: replace(configured(name), weights="random"),
}
"""Adapter -> (name, folder) -> the configuration of a tiny checkpoint written into the folder."""
