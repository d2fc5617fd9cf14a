"""Hydra's and OmegaConf's errors, said in one line: key=value: rule (remedy)."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from himap.errors import ConfigError
from himap.rules import suggestion, unknown

# Hydra raises a bare ValueError for `group=null`.
EXPLAINED = (HydraException, OmegaConfBaseException, ValueError)

_PHRASES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def explain(
    error: Exception, overrides: Sequence[str], cfg: DictConfig, schema: type | None = None
) -> ConfigError:
    """Turn an error of composing or checking into the one that the user reads.

    Args:
        error: one of `EXPLAINED`.
        overrides: as typed, to find the one to blame.
        cfg: the configuration composed without the overrides, or with them where that worked.
        schema: its dataclass, for the types that keys must have.
    """
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return unknown(group, option, error.options)
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"{error.override}: cannot be read; write key=value (quote commas, spaces and brackets)."
        )
    if isinstance(error, OmegaConfBaseException):
        return _explain_key(error, cfg, schema)
    return _explain_text(str(error), overrides, cfg)


def _explain_key(error: OmegaConfBaseException, cfg: DictConfig, schema: type | None) -> ConfigError:
    key = str(error.full_key or error.key)
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(f"{key}=???: must be given (add {key}=VALUE or +{key}=VALUE).")
    if isinstance(error, InterpolationResolutionError):
        reason = str(error.msg).splitlines()[0].split(": ", 1)[-1]
        return ConfigError(f"{key}: cannot be resolved: {reason} (define it or give a value).")
    value = OmegaConf.select(cfg, key, throw_on_missing=False)
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    value = "null" if value is None else value
    if isinstance(error, ConfigKeyError):
        known = _siblings(schema, key)
        choose = f" (choose one of {', '.join(known)})" if known else ""
        return ConfigError(f"{key}={value}: unknown key{suggestion(key.rpartition('.')[2], known)}{choose}.")
    if isinstance(error, ValidationError):
        return ConfigError(f"{key}={value}: must be {_phrase(_type_of(schema, key))}.")
    return ConfigError(f"{key}={value}: {str(error.msg).splitlines()[0]}.")


def _explain_text(text: str, overrides: Sequence[str], cfg: DictConfig) -> ConfigError:
    first = text.splitlines()[0]
    if found := re.match(r"Could not override '(.+?)'", first):
        key = found[1]
        return _explain_unknown(key, _typed(key, overrides), cfg)
    if found := re.match(r"Ambiguous value for argument '(.+)'", first):
        return ConfigError(
            f"{found[1]}: one value expected (add -m to run once for each, or write [a,b] for a list)."
        )
    if found := re.match(r"(\S+) appears more than once|Multiple values for (\S+?)\. ", first):
        key = found[1] or found[2]
        return ConfigError(f"{_typed(key, overrides, '+')}: already chosen (leave the + out).")
    if "Config group override must be" in first:
        typed = next((o for o in overrides if o.endswith("=null")), "group=null")
        return ConfigError(f"{typed}: an option must be chosen.")
    return ConfigError(first)


def _explain_unknown(key: str, typed: str, cfg: DictConfig) -> ConfigError:
    parent, _, last = key.rpartition(".")
    around = OmegaConf.select(cfg, parent) if parent else cfg
    if isinstance(around, DictConfig):
        known = [str(name) for name in around]
        if parent.endswith((".options", ".data", ".prompt", ".stages")):
            have = f"known here: {', '.join(known)}; " if known else ""
            return ConfigError(f"{typed}: unknown key ({have}add it with +{key}=VALUE).")
        near = suggestion(last, known) or suggestion(key, list(_flat(cfg)))
        return ConfigError(f"{typed}: unknown key{near} (known here: {', '.join(known)}).")
    stages = OmegaConf.select(cfg, "pruning.stages")
    if key.startswith("pruning.stages.") and stages is not None:
        names = ", ".join(str(name) for name in stages) or "none"
        add = f"add one with +{parent}.layer, .drop and .criterion"
        return ConfigError(f"{typed}: unknown stage; this strategy has {names} ({add}).")
    return ConfigError(f"{typed}: unknown key{suggestion(key, list(_flat(cfg)))}.")


def _typed(key: str, overrides: Sequence[str], prefix: str = "") -> str:
    return next((o for o in overrides if o.startswith(f"{prefix}{key}=")), f"{prefix}{key}")


def _flat(cfg: DictConfig, parent: str = "") -> Iterator[str]:
    for key in cfg:
        name = f"{parent}{key!s}"
        yield name
        inner = OmegaConf.select(cfg, str(key))
        if isinstance(inner, DictConfig):
            yield from _flat(inner, f"{name}.")


def _type_of(schema: type | None, key: str) -> Any:
    """The annotation at a dotted key; None where the schema does not say."""
    kind: Any = schema
    for name in key.split("."):
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            kind = typing.get_type_hints(kind).get(name)
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        else:
            return None
    return kind


def _siblings(schema: type | None, key: str) -> list[str]:
    parent = key.rpartition(".")[0]
    kind = _type_of(schema, parent) if parent else schema
    return [item.name for item in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def _phrase(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        inner, *_ = (part for part in typing.get_args(kind) if part is not types.NoneType)
        return f"{_phrase(inner)} or null"
    if dataclasses.is_dataclass(kind):
        return f"keys with values ({', '.join(item.name for item in dataclasses.fields(kind))})"
    if typing.get_origin(kind) is dict:
        return "keys with values, {key: value}"
    if typing.get_origin(kind) is list:
        return "a list, [a,b]"
    return _PHRASES.get(kind, "of another type")
