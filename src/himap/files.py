"""Writing results so that a kill at any moment leaves either the old file or the new one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from himap.errors import UserError

_LOCK = ".lock"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; a killed holder lets go by itself.

    Raises:
        BlockingIOError: another process holds it.
        UserError: the file system has no locks.
    """
    with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Hold a folder together with others that do; a killed holder lets go by itself.

    Raises:
        BlockingIOError: another process holds it alone.
        UserError: the file system has no locks.
    """
    with _locked(folder, fcntl.LOCK_SH | fcntl.LOCK_NB):
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Hold a folder for one process, after those that hold it now.

    Raises:
        UserError: the file system has no locks.
    """
    with _locked(folder, fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(folder: Path, operation: int) -> Iterator[None]:
    # A file, for NFS locks a folder against processes of the same host alone.
    with open(folder / _LOCK, "a+") as file:
        try:
            fcntl.flock(file, operation)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            raise UserError(
                f"hydra.run.dir={folder}: its file system refuses locks, which processes need to share it "
                "(mount it with locks, on Lustre -o flock, or give a folder elsewhere)."
            ) from error
        yield


def write_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` through a temporary file, fsync and rename."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary file, fsync and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two workers that write the same file must not share one; in containers process ids repeat.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN is refused because JSON has none."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append one JSON object a line and fsync; a kill can tear only the last line (see `read_jsonl`)."""
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    with open(path, "a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file; a torn last line (killed writer) is left out."""
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            # str.splitlines would also split inside strings at U+2028; iterating the file does not.
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def repair_jsonl(path: Path) -> None:
    """Cut a torn last line off, so that appending can go on after a kill."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        write_bytes_atomic(path, data[: data.rfind(b"\n") + 1])
