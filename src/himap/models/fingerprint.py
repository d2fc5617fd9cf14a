"""What tells weights apart without reading them whole: retrained ones at the same path are other weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.models.hub import BIN, SAFETENSORS, checkpoint_folder, shards

if TYPE_CHECKING:
    from himap.config import ModelConfig

_WHOLE = 64 * 2**20
"""Files up to this size are read whole, in bytes."""
_EDGE = 2**20
_BLOCK = 4096
_N_BLOCKS = 1024


def fingerprint(config: ModelConfig) -> str | None:
    """The hub's commit, or a digest of a local folder's weight files; None for random weights.

    Of a large file its size, its beginning (the header of safetensors), its end (the checksums of a .bin) and
    1,024 blocks spread evenly over it are read: seconds where the whole would take minutes.

    Raises:
        UserError: the weights are missing, incomplete or out of reach.
    """
    if config.weights == "random":
        return None
    if not config.path:
        if config.adapter != "shapes":
            return None  # an adapter with weights of its own making
        from himap.models.shapes import WEIGHTS as folder
    else:
        patterns = BIN if config.adapter in ("internvl_chat", "qwen_vl_chat") else SAFETENSORS
        folder = checkpoint_folder(config.path, config.revision, patterns)
    if not Path(config.path).expanduser().is_dir() and folder.parent.name == "snapshots":
        return f"commit {folder.name}"
    files = shards(folder)
    marks = tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _digest(tuple(files), marks)


def identified(identity: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The settings that change a run's numbers, with the weights that they name.

    Raises:
        UserError: as `fingerprint`.
    """
    weights = fingerprint(config)
    return identity if weights is None else {**identity, "weights": weights}


@functools.cache
def _digest(files: tuple[Path, ...], marks: tuple[tuple[int, int], ...]) -> str:
    """Of the contents; `marks` (size, time) make a file that changes while we run another one."""
    found = hashlib.sha256()
    for file, (size, _) in zip(files, marks, strict=True):
        found.update(size.to_bytes(8, "big"))
        with open(file, "rb") as content:
            for start, length in _blocks(size):
                content.seek(start)
                found.update(content.read(length))
    return f"sha256 {found.hexdigest()[:16]}"


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what is read of a file."""
    if size <= _WHOLE:
        yield 0, size
        return
    yield 0, _EDGE
    step = (size - 2 * _EDGE - _BLOCK) // (_N_BLOCKS - 1)
    for number in range(_N_BLOCKS):
        yield _EDGE + number * step, _BLOCK
    yield size - _EDGE, _EDGE
