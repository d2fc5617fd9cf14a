"""Benchmarks from the data hub, or from what an earlier run left in its cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from himap.errors import UserError
from himap.tasks.rows import ParquetRows, first_line, module, parquet_files

_PATIENCE_S = 10.0


def open_hub(ids: Sequence[str], name: str, split: str, revision: str | None) -> tuple[ParquetRows, str]:
    """The first data set of `ids` that the hub has, and which one it was: `id@commit`.

    Only the files of the split are downloaded; the hub's cache keeps them, for lack of a network too.

    Raises:
        UserError: none can be had; the message says why.
    """
    datasets = module("datasets")
    is_reachable = all(Path(id).is_dir() for id in ids) or _is_reachable()
    reasons = []
    for id in ids:
        try:
            if is_reachable or Path(id).is_dir():
                return _online(id, name, split, revision)
            return _cached(id, name, split, revision)
        # Unknown, gated, broken: whatever the hub raises about one id, the next may do.
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            reasons.append(f"{id}: {first_line(error)}")
    raise UserError(
        f"task.data.source=hub: {'; '.join(reasons)} (give a network, or download it and set "
        "task.data.source=parquet task.data.path=FOLDER)."
    )


def _is_reachable() -> bool:
    """One question, for the hub's own calls try six times before they give up."""
    hub = module("huggingface_hub")
    try:
        hub.get_session().head(hub.constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception:  # of an HTTP library that is the hub's own choice
        return False
    return True


def _online(id: str, name: str, split: str, revision: str | None) -> tuple[ParquetRows, str]:
    builder = module("datasets").load_dataset_builder(id, name or None, revision=revision)
    files = builder.config.data_files
    if split not in files:
        raise UserError(f"task.split={split}: {id} has {', '.join(files)} (set task.data.split).")
    return ParquetRows([_local(str(url)) for url in files[split]]), f"{id}@{builder.hash}"


def _cached(id: str, name: str, split: str, revision: str | None) -> tuple[ParquetRows, str]:
    look_up = module("huggingface_hub").try_to_load_from_cache
    readme = look_up(id, "README.md", repo_type="dataset", revision=revision)
    if not isinstance(readme, str):
        raise OSError("the hub cannot be reached, and its cache has no such data set")
    folder = Path(readme).parent
    try:
        files = parquet_files(folder, name, split)
    except UserError as error:
        raise OSError(f"the hub cannot be reached, and of its cache {error}".rstrip(".")) from error
    return ParquetRows(files), f"{id}@{folder.name}"


def _local(url: str) -> Path:
    """A file of a data set on this machine, downloaded where the hub has it."""
    found = re.fullmatch(r"hf://datasets/([^@]+)@([^/]+)/(.+)", url)
    if found is None:
        return Path(url)
    download = module("huggingface_hub").hf_hub_download
    return Path(download(found[1], found[3], repo_type="dataset", revision=found[2]))
