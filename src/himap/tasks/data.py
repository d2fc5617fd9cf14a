"""`task.data`: where a benchmark's samples are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from himap.errors import ConfigError
from himap.rules import one_of, unknown

SOURCES = ("hub", "parquet", "disk", "original")


@dataclass(frozen=True)
class Data:
    """Where a benchmark's samples are.

    Attributes:
        source: `hub` (network), `parquet` (files with the hub's columns), `disk` (`save_to_disk`), or
            `original` (the files as the benchmark's authors, or LLaVA, released them).
        path: file or folder; for `original` the benchmark's own folder.
        ids: the hub's names of it, tried in turn.
        name: the hub's configuration.
        split: the data's own name of the split; empty takes the task's.
        revision: the hub's commit.
        images: folder of the images of `original`, where they do not lie in their usual place below `path`.
    """

    source: str
    path: str = ""
    ids: tuple[str, ...] = ()
    name: str = ""
    split: str = ""
    revision: str | None = None
    images: str = ""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Data:
        """Check `task.data`.

        Raises:
            ConfigError: an unknown key or source, a value of another type, or a source without its path.
        """
        known = [item.name for item in fields(cls)]
        for key, value in given.items():
            if key not in known:
                raise unknown("task.data", key, known)
            if key != "ids" and value is not None and not isinstance(value, str):
                raise ConfigError(f"task.data.{key}={value}: must be a text.")
        ids = given.get("ids") or []
        if isinstance(ids, str) or not all(isinstance(id, str) for id in ids):
            raise ConfigError(f"task.data.ids={ids}: must be a list of names, [lmms-lab/POPE].")
        data = cls(**{"source": "", **{key: value for key, value in given.items() if value is not None}})
        one_of("task.data.source", data.source, SOURCES)
        if data.source != "hub" and not data.path:
            raise ConfigError(f"task.data.path=null: must be given for task.data.source={data.source}.")
        if data.source == "hub" and not data.ids:
            raise ConfigError("task.data.ids=null: must name the data set for task.data.source=hub.")
        if data.source != "original" and data.images:
            raise ConfigError(
                f"task.data.images={data.images}: is for task.data.source=original alone (the tables of the "
                "other sources hold their images)."
            )
        return data

    @property
    def key(self) -> str:
        """What to mend when a sample is broken."""
        return (
            f"task.data.source=hub ({self.ids[0]})" if self.source == "hub" else f"task.data.path={self.path}"
        )
