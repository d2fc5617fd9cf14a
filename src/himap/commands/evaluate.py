"""`himap evaluate`: one model, one strategy, one task -> result.json and answers.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from himap.commands.launch import holding, launch
from himap.config import EvaluateConfig, identity
from himap.result import Result, digest


def main(arguments: Sequence[str]) -> None:
    launch("evaluate", EvaluateConfig, run, arguments)


def run(config: EvaluateConfig, folder: Path) -> None:
    """Evaluate, write into `folder`, record the result and print it.

    Raises:
        UserError: another run writes into the folder.
    """
    with holding(folder):
        _run(config, folder)


def _run(config: EvaluateConfig, folder: Path) -> None:
    from himap import models, tasks, tracking
    from himap.evaluate import evaluate
    from himap.hardware import prepare
    from himap.progress import bar

    part = identity(config.model, config.pruning, config.task, config.hardware)
    if (done := _done(folder, part)) is not None:
        show(done, folder)
        return
    task = tasks.load(config.task)
    task.check()
    prepare(config.hardware)
    model = models.load(config.model, config.hardware)
    result = evaluate(
        model,
        config.pruning.strategy(),
        task,
        batch_size=config.hardware.batch_size,
        answers_path=folder / "answers.jsonl",
        identity=part,
        fail_on_bad_sample=config.task.on_bad_sample == "fail",
        bar=bar(f"{config.model.name}, {config.pruning.name}, {config.task.name}"),
    )
    result.save(folder / "result.json")
    tracker = tracking.create(config.tracking, folder)
    tracker.start(
        name=f"{result.model}-{result.pruning}-{result.task}",
        group=config.tracking.group,
        config=asdict(config),
        job_type="evaluate",
    )
    tracker.log(tracking.numbers(result))
    tracker.finish()
    show(result, folder)


def _done(folder: Path, part: Mapping[str, Any]) -> Result | None:
    """The result of a cell that an earlier start of the same multirun finished: no model is loaded."""
    path = folder / "result.json"
    if HydraConfig.get().mode != RunMode.MULTIRUN or not path.exists():
        return None
    result = Result.load(path)
    return result if result.config_sha256 == digest(part) and not result.n_failed else None


def show(result: Result, folder: Path) -> None:
    """Print a result as a table, and where it lies."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{result.model}, {result.pruning}, {result.task} ({result.split})", show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    for name, value in result.metrics.items():
        if name != "primary":
            table.add_row(name, "undefined" if value is None else f"{value:.2f}")
    if result.ci95 is not None:
        low, high = result.ci95
        table.add_row(f"95 % interval of {result.metrics['primary']}", f"{low:.2f} to {high:.2f}")
    failed = f" ({result.n_failed} failed)" if result.n_failed else ""
    table.add_row("samples", f"{result.n_samples}{failed}")
    for layer, n in result.kept:
        table.add_row(f"image tokens after layer {layer:g}", f"{n:g}")
    if result.flops:
        table.add_row("FLOPs share (paper)", f"{result.flops['paper_share']:.1%}")
        table.add_row("FLOPs share (prefill)", f"{result.flops['prefill_share']:.1%}")
    if result.samples_per_second is not None:
        table.add_row("samples per second", f"{result.samples_per_second:.1f}")
    console = Console()
    console.print(table)
    for note in result.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    print(folder / "result.json")
