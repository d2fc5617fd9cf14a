"""Where a checkpoint lies: a local folder, or a snapshot of the hub; every way to fail is one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from himap.errors import UserError

_DESCRIPTIONS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
SAFETENSORS = ("*.safetensors",)
BIN = ("*.bin",)


def checkpoint_folder(path: str, revision: str | None, weights: Sequence[str] = SAFETENSORS) -> Path:
    """The folder of a checkpoint's files, downloaded (or found in the cache) where `path` is a hub id.

    Args:
        path: a folder or a hub id.
        revision: branch, tag or commit on the hub.
        weights: patterns of the files that hold the weights.

    Raises:
        UserError: there is no such folder or id, it is gated, or the hub cannot be reached.
    """
    folder = Path(path).expanduser()
    if path and folder.is_dir():
        return folder
    if not path or path.startswith(("/", ".", "~")) or path.count("/") != 1:
        raise UserError(f"model.path={path}: no such folder (give a folder, or a hub id like owner/name).")
    return _snapshot(path, revision, weights)


def _snapshot(path: str, revision: str | None, weights: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # What is raised without a connection: the HTTP library is the hub's own choice and changes with it.
    libraries = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name)]
    unreachable: tuple[type[Exception], ...] = (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        *(library.TransportError for library in libraries),
    )
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=[*_DESCRIPTIONS, *weights]))
    except GatedRepoError as error:  # before RepositoryNotFoundError, its parent
        raise UserError(
            f"model.path={path}: the hub gives it only to those who accepted its terms (accept them on its "
            "page, then `hf auth login`)."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"model.path={path}: neither a folder nor a model on the hub that you may read (check the name; "
            "a private one needs `hf auth login`)."
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"model.revision={revision}: {path} has no such revision (see its page on the hub)."
        ) from error
    except unreachable as error:
        raise UserError(
            f"model.path={path}: no such folder, not in the hub's cache, and the hub cannot be reached "
            "(go online, or give a folder)."
        ) from error
    except HfHubHTTPError as error:
        raise UserError(f"model.path={path}: the hub refused ({error}).") from error


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a checkpoint.

    Raises:
        UserError: it is missing or is no JSON.
    """
    try:
        content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"model.path={folder}: no {name} there (is the checkpoint complete?).") from error
    except ValueError as error:
        raise UserError(f"model.path={folder}: {name} is not JSON ({error}).") from error
    return content


def shards(folder: Path) -> list[Path]:
    """The files that hold the weights, in order; safetensors before .bin where both are there.

    Raises:
        UserError: there are none, or the index names files that are missing.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.exists():
            names = sorted(set(read_json(folder, index.name)["weight_map"].values()))
            absent = [name for name in names if not (folder / name).exists()]
            if absent:
                raise UserError(
                    f"model.path={folder}: incomplete: {len(absent)} of {len(names)} weight files are "
                    f"missing, the first {absent[0]} (download it again)."
                )
            return [folder / name for name in names]
        if (folder / f"{stem}.{suffix}").exists():
            return [folder / f"{stem}.{suffix}"]
    raise UserError(
        f"model.path={folder}: no weights there (model.safetensors, pytorch_model.bin or shards)."
    )
