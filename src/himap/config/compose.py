"""From the command line's overrides to a checked configuration object."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from himap.config.explain import EXPLAINED, explain
from himap.config.schema import PruningConfig
from himap.errors import ConfigError, placed
from himap.paths import conf_dir

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")


def skeleton(schema: type) -> dict[str, Any]:
    """All keys of a schema with their defaults, `???` where YAML must give a value.

    Composition works on this untyped form, because a typed mapping refuses `+pruning.stages.third.layer=12`;
    `parse` checks the types afterwards.
    """
    hints = typing.get_type_hints(schema)
    keys: dict[str, Any] = {}
    for item in dataclasses.fields(schema):
        if dataclasses.is_dataclass(hints[item.name]):
            keys[item.name] = skeleton(hints[item.name])
        elif item.default is not dataclasses.MISSING:
            keys[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            keys[item.name] = item.default_factory()
        else:
            keys[item.name] = "???"
    return keys


def register(verb: str, schema: type) -> None:
    """Make `<verb>_schema` known to Hydra, the first entry of the verb's defaults list."""
    ConfigStore.instance().store(name=f"{verb}_schema", node=skeleton(schema))


def _without_keys(verb: str, extra: list[str], overrides: Sequence[str]) -> DictConfig:
    """The configuration with the groups that were chosen but no single key, to name what is known there."""
    groups = [override for override in overrides if "." not in override.partition("=")[0]]
    for chosen in (groups, []):
        try:
            return hydra_compose(verb, overrides=[*extra, *chosen])
        except EXPLAINED:
            continue
    return OmegaConf.create({})


def parse(schema: type[T], cfg: DictConfig, overrides: Sequence[str] = ()) -> T:
    """Check a composed configuration against its schema and build the object.

    Raises:
        ConfigError: a type, a range or a rule between fields is broken; the message is one line.
    """
    try:
        return typing.cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), cfg)))
    except ConfigError as error:
        key = _strategy_to_blame(cfg, str(error))
        if key is None:
            raise
        raise placed(error, key) from error
    except EXPLAINED as error:
        raise explain(error, overrides, cfg, schema) from error


def _strategy_to_blame(cfg: Any, message: str, key: str = "") -> str | None:
    """Where the strategy stands that gives this message: `pruning`, or one to compare with."""
    if not isinstance(cfg, DictConfig):
        return None
    if isinstance(OmegaConf.select(cfg, "stages"), DictConfig):
        try:
            OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PruningConfig), cfg))
        except ConfigError as error:
            return key if str(error) == message else None
        except EXPLAINED:
            return None
    # `pruning` itself first: of two that are wrong alike it is read first.
    for name in sorted(map(str, cfg), key=lambda name: name != "pruning"):
        if not OmegaConf.is_missing(cfg, name) and not OmegaConf.is_interpolation(cfg, name):
            found = _strategy_to_blame(cfg[name], message, f"{key}.{name}" if key else name)
            if found is not None:
                return found
    return None


def compose(
    verb: str, schema: type[T], overrides: Sequence[str] = (), config_dir: Path | str | None = None
) -> T:
    """Compose and check a verb's configuration without running anything.

    Args:
        verb: the root configuration's name.
        schema: its dataclass.
        overrides: as typed after the verb.
        config_dir: a further folder of options.

    Raises:
        ConfigError: in one line, with the override to blame.
    """
    register(verb, schema)
    with composer(config_dir) as composed:
        return parse(schema, composed(verb, overrides), overrides)


@contextmanager
def composer(config_dir: Path | str | None = None) -> Iterator[Any]:
    """Give a function `(verb, overrides) -> DictConfig` that composes from conf/ and `config_dir`.

    With `hydra=True` the configuration has Hydra's own part, too.
    """
    extra = []
    if config_dir is not None:
        extra = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]

    def composed(verb: str, overrides: Sequence[str], hydra: bool = False) -> DictConfig:
        try:
            return hydra_compose(verb, overrides=[*extra, *overrides], return_hydra_config=hydra)
        except EXPLAINED as error:
            raise explain(error, overrides, _without_keys(verb, extra, overrides)) from error

    with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="himap"):
        yield composed
