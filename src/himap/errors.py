"""Errors that a user can cause and mend; the command line prints them as one line and exits with 1."""

from __future__ import annotations


class HimapError(Exception):
    """Base of all errors that himap raises on purpose."""


class UserError(HimapError):
    """Something a user typed, pointed to or lacks; the message is one line: key, value, rule and remedy."""


class ConfigError(UserError):
    """A configuration value that breaks a rule."""


def placed(error: ConfigError, key: str) -> ConfigError:
    """The error of a strategy that stands at `key`; strategies themselves say `pruning`."""
    return ConfigError(str(error).replace("pruning.stages.", f"{key}.stages."))


class Unsupported(UserError):
    """A model or call that cannot be pruned soundly; the message names the reason."""
