"""A benchmark over its axes: a file for each cell as it is done, so that a second start goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.answers import differences
from himap.errors import UserError
from himap.files import write_json
from himap.flops import DecoderShape
from himap.latency.cell import measure, n_steps
from himap.latency.config import BenchmarkConfig
from himap.latency.memory import weights_bytes
from himap.latency.outcome import summarise
from himap.latency.shape import Shape
from himap.progress import Bar
from himap.result import environment

if TYPE_CHECKING:
    from himap.models.base import Model

CELLS = "cells"


def missing(config: BenchmarkConfig, folder: Path) -> list[Shape]:
    """The shapes that the folder has no cell of yet.

    Raises:
        UserError: its cells were made with other settings; the message names them.
    """
    return [shape for shape in config.benchmark.shapes(config.model) if _read(config, folder, shape) is None]


def run(config: BenchmarkConfig, folder: Path, shapes: Sequence[Shape], bar: Bar) -> None:
    """Load the model and measure the shapes, one after the other, each written when it is done.

    Raises:
        UserError: the device or the weights are missing, or a shape cannot be measured.
    """
    from himap import models
    from himap.hardware import prepare

    prepare(config.hardware)
    model = models.load(config.model, config.hardware)
    whole = len(config.benchmark.shapes(config.model))
    steps = n_steps(config.benchmark)
    bar.begin(whole * steps, (whole - len(shapes)) * steps)
    try:
        measure_all(config, model, folder, shapes, bar)
    finally:
        bar.end()


def measure_all(
    config: BenchmarkConfig, model: Model, folder: Path, shapes: Sequence[Shape], bar: Bar
) -> None:
    """`run` with a model that is loaded and a bar that has begun."""
    decoder = DecoderShape.from_config(model.hf.config)
    weights = weights_bytes(model.hf)
    strategies = {name: pruning.strategy() for name, pruning in config.benchmark.pruning.items()}
    for shape in shapes:
        raw = measure(model, config.benchmark, shape, partial(bar.advance, 1, shape.text))
        cell = summarise(
            raw,
            strategies,
            config.benchmark.reference,
            decoder,
            weights=weights,
            n_bytes=model.hf.dtype.itemsize,
        )
        content = {"identity": config.identity(), "environment": environment(str(model.device)), **cell}
        write_json(_path(folder, shape), content)


def cells(config: BenchmarkConfig, folder: Path) -> list[dict[str, Any]]:
    """The cells of the configuration's shapes, in order; all must be there."""
    found = [_read(config, folder, shape) for shape in config.benchmark.shapes(config.model)]
    return [cell for cell in found if cell is not None]


def _path(folder: Path, shape: Shape) -> Path:
    return folder / CELLS / f"{shape.key}.json"


def _read(config: BenchmarkConfig, folder: Path, shape: Shape) -> dict[str, Any] | None:
    path = _path(folder, shape)
    if not path.exists():
        return None
    try:
        cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        identity = cell["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a cell of a benchmark ({error}); remove it.") from error
    changed = differences(identity, json.loads(json.dumps(config.identity())))
    if changed:
        raise UserError(
            f"{path}: was measured with other settings: {'; '.join(changed)} "
            "(undo the change, or choose another hydra.run.dir)."
        )
    return cell
