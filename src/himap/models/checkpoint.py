"""Weights from shards to the device: one shard in host memory at a time, every key accounted for by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.errors import UserError
from himap.progress import bar

if TYPE_CHECKING:
    import torch

Rename = Callable[[str, "torch.Tensor"], Iterable[tuple[str, "torch.Tensor"]]]
"""(key, value) of the file -> pairs of the model; several where a matrix is split, none to leave it out."""

_NAMES_SHOWN = 4


def load_weights(
    model: Any, files: Sequence[Path], rename: Rename, *, dtype: torch.dtype, device: str
) -> None:
    """Fill a model that was built on the meta device.

    Args:
        model: gets every parameter from the files; its rotary tables are computed anew.
        files: shards, `.safetensors` or `.bin`.
        rename: from the files' keys to the model's.
        dtype: of all weights.
        device: where they go, each as soon as it is read.

    Raises:
        UserError: keys are missing, unexpected or of another shape, or a file cannot be read.
    """
    expected = {name: value.shape for name, value in model.state_dict().items()}
    state: dict[str, torch.Tensor] = {}
    unexpected: list[str] = []
    misshaped: list[str] = []
    progress = bar(f"loading {files[0].parent.name}")
    progress.begin(len(files))
    try:
        for file in files:
            for key, value in _tensors(file):
                for name, part in rename(key, value):
                    if name not in expected:
                        unexpected.append(key)
                    elif part.shape != expected[name]:
                        misshaped.append(f"{key} {tuple(part.shape)} instead of {tuple(expected[name])}")
                    else:
                        # A copy of its own, so that the shard it was cut from can go.
                        state[name] = part.to(device, dtype, copy=True).contiguous()
            progress.advance()
    finally:
        progress.end()
    refuse_keys(
        files[0].parent,
        missing=[
            name for name in expected if name not in state and name not in {m.split()[0] for m in misshaped}
        ],
        unexpected=unexpected,
        misshaped=misshaped,
    )
    model.load_state_dict(state, strict=True, assign=True)
    _rebuild_rotary_tables(model, device)


def refuse_keys(
    folder: Path, *, missing: Sequence[str], unexpected: Sequence[str], misshaped: Sequence[str]
) -> None:
    """Raise where a checkpoint does not fit its model, naming the keys.

    Raises:
        UserError: any of the three is not empty.
    """
    found = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    texts = [f"{len(names)} {kind} ({_some(names)})" for kind, names in found.items() if names]
    if texts:
        raise UserError(
            f"model.path={folder}: does not fit this model: keys {'; '.join(texts)} "
            "(another model, another revision, or a broken download)."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMES_SHOWN], *(["..."] if len(names) > _NAMES_SHOWN else [])])


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as content:
                for key in content.keys():  # noqa: SIM118 (not a mapping)
                    yield key, content.get_tensor(key)
        else:
            yield from torch.load(file, map_location="cpu", weights_only=True, mmap=True).items()
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"model.path={file}: cannot be read as weights ({error}).") from error


def _rebuild_rotary_tables(model: Any, device: str) -> None:
    """The rotary frequencies lie in no checkpoint; on the meta device they have no values either."""
    import torch

    with torch.device(device):
        for module in model.modules():
            if hasattr(module, "rotary_emb"):
                module.rotary_emb = type(module.rotary_emb)(module.rotary_emb.config)
    left = [name for name, value in model.named_buffers() if value.is_meta]
    assert not left, f"buffers without values: {left}"
