"""Checks that several schemas share, each with its one-line error."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from himap.errors import ConfigError


def at_least(key: str, value: float | None, low: float) -> None:
    """Refuse a number below `low`; None passes."""
    if value is not None and not value >= low:
        raise ConfigError(f"{key}={value}: must be at least {low}.")


def one_of(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a name that is not in `choices`."""
    if value not in choices:
        raise unknown(key, value, choices)


def unknown(key: str, value: str, choices: Sequence[str]) -> ConfigError:
    """The error for a name that does not exist: the nearest one and the whole list."""
    return ConfigError(
        f"{key}={value}: unknown{suggestion(value, choices)} (choose one of {', '.join(choices)})."
    )


def suggestion(word: str, choices: Sequence[str]) -> str:
    """`; did you mean X?` where one of `choices` is near to `word`, else nothing."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
