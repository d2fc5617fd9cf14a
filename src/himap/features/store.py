"""Tensors by key in a folder that many processes share: some large files instead of many small ones.

A file holds what was put in since the last one, and its safetensors header says what that is: there is no
index that could disagree with it. Files appear whole (tmp + fsync + rename) and never change.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from himap.features.images import raw
from himap.files import write_bytes_atomic

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Entry = tuple[str, Sequence["torch.Tensor"]]
"""Form and tensors."""

_FILE_MIB = 64
_STALE_S = 3600.0
"""Age at which a temporary file is a killed writer's."""


class Store:
    """Entries below a folder.

    Args:
        folder: of the entries that this store sees.
        root: a folder above it; all files below it count for the limit.
        limit_mib: of all files together; the ones used longest ago go first.
    """

    def __init__(self, folder: Path, root: Path, limit_mib: float) -> None:
        self._folder, self._root = folder, root
        self._limit = int(limit_mib * 2**20)
        self._where: dict[str, tuple[Path, list[str]]] = {}
        self._seen: set[Path] = set()
        self._used: set[Path] = set()
        self._waiting: dict[str, Entry] = {}
        self._waiting_bytes = 0
        self._looked = 0

    def get(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Those of the entries that are there, on the CPU."""
        wanted = dict.fromkeys(keys)
        if any(key not in self._waiting and key not in self._where for key in wanted):
            self._look()
        found = {key: self._waiting[key] for key in wanted if key in self._waiting}
        by_file: dict[Path, list[str]] = {}
        for key in wanted:
            if key not in found and key in self._where:
                by_file.setdefault(self._where[key][0], []).append(key)
        for path, inside in by_file.items():
            found |= self._read(path, inside)
        return found

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Keep entries; they reach the disk with `flush`, or once there are enough of them."""
        for key, (form, tensors) in entries.items():
            # A copy of its own: a row of a batch would keep the whole batch in memory.
            kept = [tensor.detach().to("cpu", copy=True).contiguous() for tensor in tensors]
            self._waiting[key] = (form, kept)
            self._waiting_bytes += sum(tensor.nbytes for tensor in kept)
        if self._waiting_bytes >= min(_FILE_MIB * 2**20, self._limit):
            self.flush()

    def flush(self) -> None:
        """Write what waits. A full or forbidden disk costs a line and nothing else."""
        if not self._waiting:
            return
        from safetensors.torch import save

        tensors = {
            f"{key}.{form}.{i}": tensor
            for key, (form, parts) in self._waiting.items()
            for i, tensor in enumerate(parts)
        }
        sums = {name: _checksum(tensor) for name, tensor in tensors.items()}
        self._waiting, self._waiting_bytes = {}, 0
        path = self._folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            write_bytes_atomic(path, save(tensors, metadata={"crc32": json.dumps(sums)}))
            self._add(path, tensors)
            self._make_room()
        except OSError as error:
            log.warning("hardware.feature_cache: cannot write %s (%s); going on without.", path, error)

    def _look(self) -> None:
        """Read the headers of files that have appeared."""
        changed = self._folder.stat().st_mtime_ns
        if changed == self._looked:
            return
        self._looked = changed
        for path in self._folder.glob("*.safetensors"):
            if path not in self._seen:
                self._read(path, ())

    def _add(self, path: Path, names: Iterable[str]) -> None:
        self._seen.add(path)
        inside: dict[str, list[str]] = {}
        for name in names:
            inside.setdefault(name.partition(".")[0], []).append(name)
        self._where |= {key: (path, sorted(parts, key=_number)) for key, parts in inside.items()}

    def _read(self, path: Path, keys: Iterable[str]) -> dict[str, Entry]:
        """Entries of a file; what is broken is removed and computed anew."""
        from safetensors import SafetensorError, safe_open

        found: dict[str, Entry] = {}
        try:
            with safe_open(path, framework="pt") as content:
                if path not in self._seen:
                    self._add(path, content.keys())
                sums = json.loads((content.metadata() or {})["crc32"]) if keys else {}
                for key in keys:
                    names = self._where[key][1]
                    tensors = [content.get_tensor(name) for name in names]
                    if any(_checksum(t) != sums[name] for t, name in zip(tensors, names, strict=True)):
                        raise ValueError("its checksum differs")
                    found[key] = (names[0].split(".")[1], tensors)
            if keys and path not in self._used:
                self._used.add(path)
                os.utime(path)  # used just now: among the last to go
        except FileNotFoundError:
            self._forget(path)  # another process made room
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("hardware.feature_cache: %s is broken (%s); computed anew.", path, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            self._forget(path)
            self._seen.add(path)
            return {}
        return found

    def _forget(self, path: Path) -> None:
        self._seen.discard(path)
        self._where = {key: place for key, place in self._where.items() if place[0] != path}

    def _make_room(self) -> None:
        files: list[tuple[float, int, Path]] = []
        for path in self._root.rglob("*"):
            try:
                stat = path.stat()
                if path.suffix == ".safetensors":
                    files.append((stat.st_mtime, stat.st_size, path))
                elif path.suffix == ".tmp" and stat.st_mtime < time.time() - _STALE_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # another process was faster
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            self._forget(path)
            total -= size


def _number(name: str) -> int:
    return int(name.rpartition(".")[2])


def _checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(raw(tensor))
