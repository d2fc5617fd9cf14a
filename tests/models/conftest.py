"""One tiny checkpoint a model, written and loaded once for all tests here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from published import write_internvl, write_llava, write_qwen
from shrunk import configured, loaded, write_native

from himap.config import ModelConfig
from himap.models.base import Model

WRITERS: dict[str, Callable[[str, Path], ModelConfig]] = {
    "llava": lambda name, folder: write_llava(folder, name),
    "internvl_chat": lambda name, folder: write_internvl(folder),
    "qwen_vl_chat": lambda name, folder: write_qwen(folder),
    "native": write_native,
    "shapes": lambda name, folder: configured(name),  # its weights are in the package
}
"""Adapter -> (name, folder) -> the configuration of a tiny checkpoint written into the folder."""


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelConfig]:
    """name of a model -> the configuration of its tiny checkpoint."""

    @cache
    def write(name: str) -> ModelConfig:
        return WRITERS[configured(name).adapter](name, tmp_path_factory.mktemp("checkpoints") / name)

    return write


@pytest.fixture(scope="session")
def ready(written: Callable[[str], ModelConfig]) -> Callable[[str], Model]:
    """name of a model -> the model, loaded from its tiny checkpoint."""

    @cache
    def ready(name: str) -> Model:
        return loaded(written(name))

    return ready
