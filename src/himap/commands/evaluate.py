"""`himap evaluate`: one model, one strategy, one task -> result.json and answers.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from himap.commands.launch import holding, launch
from himap.config import EvaluateConfig, identity
from himap.errors import UserError
from himap.files import in_turn
from himap.result import Result, digest
from himap.shards import Shard

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.reuse import Reuse


@dataclass
class EvaluateVerbConfig(EvaluateConfig):
    """An evaluation, or one of the shares into which several workers cut it.

    Attributes:
        shard: `2/8` answers the second of eight shares; all of them write into one `hydra.run.dir`, and the
            one that ends last joins them. Null answers everything.
    """

    shard: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard is not None:
            Shard.parse(self.shard)


def main(arguments: Sequence[str]) -> None:
    typed = [word for word in arguments if word.startswith("shard=") and word != "shard=null"]
    places = ("hydra.run.dir=", "hydra.sweep.dir=", "-m", "--multirun")
    if typed and not any(word.startswith(places) for word in arguments):
        raise UserError(
            f"{typed[0]}: needs hydra.run.dir=FOLDER, the same for all shares (without it each would get a "
            "folder of its own)."
        )
    launch("evaluate", EvaluateVerbConfig, run, arguments)


def run(config: EvaluateVerbConfig, folder: Path) -> None:
    """Evaluate, write into `folder`, record the result and print it.

    Raises:
        UserError: another run writes into the folder.
    """
    if config.shard is not None:
        _run_share(config, Shard.parse(config.shard), folder)
        return
    if config.hardware.devices is not None or config.hardware.slurm is not None:
        _run_workers(config, folder)
        return
    with holding(folder):
        _run(config, folder)


def _run(config: EvaluateVerbConfig, folder: Path) -> None:
    from himap import tasks
    from himap.evaluate import evaluate
    from himap.progress import bar
    from himap.shards import gather

    part = _identity(config)
    if (done := _done(folder, part)) is not None:
        show(done, folder)
        return
    task = tasks.load(config.task)
    task.check()
    gather(folder, part)
    model, reuse = _load(config, part)
    result = evaluate(
        model,
        config.pruning.strategy(),
        task,
        batch_size=config.hardware.batch_size,
        answers_path=folder / "answers.jsonl",
        identity=part,
        fail_on_bad_sample=config.task.on_bad_sample == "fail",
        bar=bar(f"{config.model.name}, {config.pruning.name}, {config.task.name}"),
        reuse=reuse,
    )
    _finish(config, result, folder)


def _run_share(config: EvaluateVerbConfig, shard: Shard, folder: Path) -> None:
    from himap import tasks
    from himap.progress import bar
    from himap.shards import answer_share, join, joined, open_samples, rows_so_far

    part = _identity(config)
    task = tasks.load(config.task)
    task.check()
    n_samples = len(task.samples())
    own = shard.folder(folder)
    own.mkdir(parents=True, exist_ok=True)
    stop = config.task.on_bad_sample == "fail"
    loaded: tuple[Model, Reuse] | None = None
    taken = (
        f"shard={shard}: another process answers this share of {folder} (wait for it, or take another share)."
    )
    with holding(folder, together=True):
        with holding(own, taken=taken):
            if open_samples(shard, task, folder, part):
                loaded = model, reuse = _load(config, part)
                answer_share(
                    model,
                    config.pruning.strategy(),
                    task,
                    shard,
                    folder,
                    part,
                    batch_size=config.hardware.batch_size,
                    fail_on_bad_sample=stop,
                    bar=bar(f"{config.model.name}, {config.pruning.name}, {config.task.name}, {shard}"),
                    reuse=reuse,
                )
        with in_turn(folder / "shards"):
            n_asked = len(rows_so_far(folder, part))
            if n_asked < n_samples:
                print(
                    f"share {shard} is done; {n_asked} of {n_samples} samples have been asked, and the share "
                    "that ends last writes result.json"
                )
            elif joined(folder, part):
                show(Result.load(folder / "result.json"), folder)
            else:
                model, _ = loaded or _load(config, part)
                result = join(model, config.pruning.strategy(), task, folder, part, fail_on_bad_sample=stop)
                _finish(config, result, folder)


def _run_workers(config: EvaluateVerbConfig, folder: Path) -> None:
    from himap import tasks
    from himap.commands import evaluate_workers
    from himap.progress import bar
    from himap.shards import joined

    part = _identity(config)
    task = tasks.load(config.task)
    task.check()
    with holding(folder, together=True):
        if not joined(folder, part) or Result.load(folder / "result.json").n_failed:
            title = f"{config.model.name}, {config.pruning.name}, {config.task.name}"
            evaluate_workers.run(task, config.hardware, folder, part, bar(title))
    show(Result.load(folder / "result.json"), folder)


def _identity(config: EvaluateVerbConfig) -> dict[str, Any]:
    from himap.models.fingerprint import identified

    return identified(identity(config.model, config.pruning, config.task, config.hardware), config.model)


def _load(config: EvaluateVerbConfig, part: Mapping[str, Any]) -> tuple[Model, Reuse]:
    from himap.commands.kept import load

    hydra = HydraConfig.get()
    within = str(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    return load(config.model, config.hardware, config.task, part.get("weights"), within=within)


def _finish(config: EvaluateVerbConfig, result: Result, folder: Path) -> None:
    from himap import tracking

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
    """The result of a cell that an earlier start of the same multirun finished: no model is loaded.

    Samples that failed or stayed unjudged are asked again.
    """
    path = folder / "result.json"
    if HydraConfig.get().mode != RunMode.MULTIRUN or not path.exists():
        return None
    result = Result.load(path)
    is_whole = not result.n_failed and not result.metrics.get("unjudged")
    return result if is_whole and result.config_sha256 == digest(part) else None


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
