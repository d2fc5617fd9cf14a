"""`himap analyze`: saliency, disruption or survivors of one model on one task -> tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.analysis.config import AnalyzeConfig, DisruptionConfig, KeptConfig, SaliencyConfig
from himap.analysis.outcome import Outcome
from himap.commands.launch import holding, launch
from himap.config import identity
from himap.errors import ConfigError
from himap.result import Result, digest
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Task


def main(arguments: Sequence[str]) -> None:
    launch("analyze", AnalyzeConfig, run, arguments)


def run(config: AnalyzeConfig, folder: Path) -> None:
    """Measure every sample, summarise, draw, record and print.

    Raises:
        UserError: another run writes into the folder.
    """
    with holding(folder):
        _run(config, folder)


def _run(config: AnalyzeConfig, folder: Path) -> None:
    from himap import models, tasks
    from himap.analysis.samples import measure
    from himap.hardware import prepare
    from himap.progress import bar
    from himap.report.figures import draw
    from himap.support import check_supported

    settings = config.settings
    strategies = _strategies(config)
    prepare(config.hardware)
    task = tasks.load(config.task)
    task.samples()  # what is wrong with the data comes before a model is loaded
    model = models.load(config.model, config.hardware)
    check_supported(model.hf)
    same = _identity(config)
    rows, failed = measure(
        task,
        _ask(settings, model, task, strategies),
        path=folder / "samples.jsonl",
        identity=same,
        batch_size=config.hardware.batch_size,
        fail_on_bad_sample=config.task.on_bad_sample == "fail",
        bar=bar(f"{config.model.name}, {config.task.name}, {settings.name}"),
    )
    outcome = _summarise(settings, rows, model, strategies)
    if isinstance(settings, KeptConfig):
        from himap.analysis.show import show

        chosen = settings.ids or [row["id"] for row in rows[: settings.show]]
        show(model, task, strategies[0], rows, chosen, folder)
    facts = {
        "model": config.model.name,
        "task": config.task.name,
        "split": config.task.split,
        "n_layers": model.text_config.num_hidden_layers,
        "settings": asdict(settings),
    }
    outcome.save(folder, facts)
    result = _result(config, model, task, strategies, rows, failed, outcome, digest(same))
    result.save(folder / "result.json")
    figures = draw(folder)
    _record(config, folder, result, outcome, figures)
    _print(result, outcome, figures)


def _strategies(config: AnalyzeConfig) -> list[Strategy]:
    """For `kept`: the chosen strategy, then those that it is compared with."""
    settings = config.settings
    if not isinstance(settings, KeptConfig):
        return []
    named = {config.pruning.name: config.pruning, **settings.compare}
    strategies = [Strategy(name, pruning.strategy().stages) for name, pruning in named.items()]
    for strategy in strategies:
        if not strategy.stages:
            raise ConfigError(f"pruning={strategy.name}: drops nothing (choose a strategy with a stage).")
    return strategies


def _identity(config: AnalyzeConfig) -> dict[str, Any]:
    """The settings that change what is measured."""
    from himap.models.fingerprint import identified

    same = identified(identity(config.model, config.pruning, config.task, config.hardware), config.model)
    if not isinstance(config.settings, KeptConfig):
        del same["pruning"]
    return {**same, "analysis": config.settings.measured()}


def _ask(settings: Any, model: Model, task: Task, strategies: Sequence[Strategy]) -> Any:
    from himap.analysis import ask

    if isinstance(settings, SaliencyConfig):
        return partial(ask.saliency_of, model, task, settings)
    if isinstance(settings, DisruptionConfig):
        return partial(ask.disruption_of, model, task, settings)
    return partial(ask.kept_of, model, task, strategies)


def _summarise(
    settings: Any, rows: list[dict[str, Any]], model: Model, strategies: Sequence[Strategy]
) -> Outcome:
    from himap.analysis.summary import summarise_disruption, summarise_saliency
    from himap.analysis.survival import summarise_kept

    if isinstance(settings, SaliencyConfig):
        return summarise_saliency(rows, settings)
    if isinstance(settings, DisruptionConfig):
        return summarise_disruption(rows, settings, model.text_config.num_hidden_layers)
    return summarise_kept(rows, strategies)


def _result(
    config: AnalyzeConfig,
    model: Model,
    task: Task,
    strategies: Sequence[Strategy],
    rows: list[dict[str, Any]],
    failed: list[str],
    outcome: Outcome,
    sha256: str,
) -> Result:
    from himap.cost import cost
    from himap.flops import DecoderShape
    from himap.result import environment

    strategy = strategies[0] if strategies else Strategy("none")
    shape = DecoderShape.from_config(model.hf.config)
    flops, kept = cost(shape, strategy, Counter(tuple(row["tokens"]) for row in rows))
    reasons = [f"suggested by {one.source}: {one.reason}." for one in outcome.suggestions]
    return Result(
        model=config.model.name,
        pruning=strategy.name,
        task=task.name,
        split=task.split,
        n_samples=outcome.n_used,
        n_failed=len(failed),
        metrics=outcome.metrics,
        ci95=outcome.ci95,
        kept=kept,
        flops=flops,
        environment=environment(str(model.device)),
        config_sha256=sha256,
        failed=failed,
        notes=[*outcome.notes, *reasons],
    )


def _record(
    config: AnalyzeConfig, folder: Path, result: Result, outcome: Outcome, figures: Sequence[Path]
) -> None:
    from himap import tracking

    tracker = tracking.create(config.tracking, folder)
    tracker.start(
        name=f"{result.model}-{config.settings.name}-{result.task}",
        group=config.tracking.group,
        config=asdict(config),
        job_type="analyze",
    )
    tracker.log(tracking.numbers(result))
    for name, table in outcome.tables.items():
        tracker.log_table(name, table.columns, table.rows)
    for figure in figures:
        if figure.suffix == ".png":
            tracker.log_image(figure.stem, figure)
    tracker.finish()


def _print(result: Result, outcome: Outcome, figures: Sequence[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.model}, {result.task} ({result.split})", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in result.metrics.items():
        if name != "primary":
            table.add_row(name, "none" if value is None else f"{value:.4g}")
    if result.ci95 is not None:
        low, high = result.ci95
        table.add_row(f"95 % interval of {result.metrics['primary']}", f"{low:.3f} to {high:.3f}")
    failed = f" ({result.n_failed} failed)" if result.n_failed else ""
    table.add_row("samples", f"{result.n_samples}{failed}")
    console = Console()
    console.print(table)
    for suggestion in outcome.suggestions:
        console.print(f"{suggestion.source}: {suggestion.reason}", markup=False, highlight=False)
    for figure in figures:
        print(figure)
