"""Tables of a benchmark's samples: parquet files and Arrow folders. Images stay on disk."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from himap.errors import UserError

MISSING_EXTRA = "the package {} is missing (pip install 'himap[data]')."

_ROW_GROUPS_KEPT = 4
"""Image columns of so many row groups stay in memory: answering jumps between them."""


class Rows(Protocol):
    """A table that is read by column, a cell of which can be fetched later."""

    columns: tuple[str, ...]

    def records(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows in their order, with these columns only."""

    def cell(self, row: int, column: str) -> Any:
        """One value."""


class ArrowRows:
    """An Arrow table, memory-mapped where it comes from a folder."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.columns = tuple(table.column_names)

    def records(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for batch in self._table.select(list(columns)).to_batches(max_chunksize=1000):
            yield from batch.to_pylist()

    def cell(self, row: int, column: str) -> Any:
        return self._table.column(column)[row].as_py()


class ParquetRows:
    """Parquet files in a fixed order; reading starts with their footers alone.

    Args:
        files: at least one; none may lack a column of the first.

    Raises:
        UserError: a file cannot be read or lacks a column.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        parquet = module("pyarrow.parquet")
        self._groups: list[tuple[Path, Any, int]] = []
        self._starts: list[int] = []
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self.columns: tuple[str, ...] = ()
        n = 0
        for path in files:
            with _readable(path):
                file = parquet.ParquetFile(path)
            names = tuple(file.schema_arrow.names)
            self.columns = self.columns or names
            if lacking := [name for name in self.columns if name not in names]:
                raise UserError(f"task.data.path={path}: lacks {', '.join(lacking)}, which {files[0]} has.")
            for group in range(file.num_row_groups):
                self._groups.append((path, file, group))
                self._starts.append(n)
                n += file.metadata.row_group(group).num_rows

    def records(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for path, file, group in self._groups:
            with _readable(path):
                rows = file.read_row_group(group, columns=list(columns)).to_pylist()
            yield from rows

    def cell(self, row: int, column: str) -> Any:
        index = bisect_right(self._starts, row) - 1
        if (index, column) not in self._kept:
            _, file, group = self._groups[index]
            self._kept[index, column] = file.read_row_group(group, columns=[column]).column(0)
            if len(self._kept) > _ROW_GROUPS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end((index, column))
        return self._kept[index, column][row - self._starts[index]].as_py()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file that pyarrow cannot read."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"task.data.path={path}: is no readable parquet file ({first_line(error)})."
        ) from error


def parquet_files(path: Path, name: str, split: str) -> list[Path]:
    """The files of a split: `path` itself, or `<split>-*.parquet` and `<split>/*.parquet` below it.

    Raises:
        UserError: there is none, and the message names those that are there; or some of `-00000-of-00006` are
            missing, for a part of a benchmark must not pass for the whole.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"task.data.path={path}: no such file or folder.")
    root = path / name if name and (path / name).is_dir() else path
    found = sorted(root.rglob("*.parquet"))
    files = [file for file in found if is_of(file, split)]
    if not files:
        there = ", ".join(str(file.relative_to(root)) for file in found[:5]) or "none"
        raise UserError(
            f"task.data.path={path}: no parquet file of split {split!r} (there: {there}; set "
            "task.data.split, or let task.data.path name a file)."
        )
    _refuse_gaps(path, files)
    return files


def _refuse_gaps(path: Path, files: Sequence[Path]) -> None:
    there = {str(file) for file in files}
    for file in files:
        found = re.fullmatch(r"(.*-)(\d+)(-of-)(\d+)(.*\.parquet)", file.name)
        if found is None:
            continue
        start, number, of, n, end = found.groups()
        for other in range(int(n)):
            name = f"{start}{other:0{len(number)}}{of}{n}{end}"
            if str(file.with_name(name)) not in there:
                raise UserError(
                    f"task.data.path={path}: {name} is missing, one of {int(n)} files of the split "
                    "(fetch it, or let task.data.path name a file)."
                )


def is_of(file: Path, split: str) -> bool:
    """Whether a file's place says that it holds a split, as the hub's files do."""
    return file.stem == split or file.name.startswith(f"{split}-") or file.parent.name == split


def open_disk(path: Path, split: str) -> ArrowRows:
    """A folder that `datasets` wrote with `save_to_disk`, of one split or of several.

    Raises:
        UserError: it is no such folder.
    """
    folder = path if (path / "state.json").is_file() else path / split
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files = [folder / entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"task.data.path={path}: is no folder of save_to_disk with the split {split!r} "
            f"({first_line(error)})."
        ) from error
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            f"task.data.path={path}: holds an index over its rows (save it after flatten_indices())."
        )
    pa = module("pyarrow")
    try:
        return ArrowRows(
            pa.concat_tables([pa.ipc.open_stream(pa.memory_map(str(f))).read_all() for f in files])
        )
    except (OSError, ValueError) as error:
        raise UserError(f"task.data.path={path}: cannot be read as Arrow ({first_line(error)}).") from error


def module(name: str) -> Any:
    """A package of the extra `data`.

    Raises:
        UserError: it is missing.
    """

    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"task.data.source: {MISSING_EXTRA.format(name.partition('.')[0])}") from error


def first_line(error: Exception) -> str:
    """What an error says first."""
    return next(iter(f"{error}".splitlines()), "") or type(error).__name__
