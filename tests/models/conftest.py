"""One tiny checkpoint a model, written and loaded once for all tests here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from shrunk import configured, loaded
from writers import WRITERS

from himap.config import ModelConfig
from himap.models.base import Model


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
