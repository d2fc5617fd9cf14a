"""`himap sweep`: search strategies for the front of accuracy against FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from himap.commands.launch import launch
from himap.config import EvaluateConfig, identity
from himap.progress import Bar, Quiet, bar
from himap.search.config import SearchConfig
from himap.search.front import Point, pareto
from himap.search.group import fitting
from himap.search.presence import present
from himap.search.space import Space
from himap.search.study import Sweep, Watcher, check
from himap.search.weights import with_weights
from himap.search.worker import Finished
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.commands.record import Recorder

_PROMPT = ("n_system", "n_image", "n_instruction")


@dataclass
class SweepConfig(EvaluateConfig):
    """`himap evaluate` many times: the strategy's layers and drops come from the search."""

    search: SearchConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        plan(self)


def plan(config: SweepConfig) -> Sweep:
    """What a configuration searches; raises ConfigError where its parts do not fit each other."""
    from himap.flops import DecoderShape, count

    size = config.model.architecture
    sizes = asdict(size)
    prompt = tuple(sizes.pop(name) for name in _PROMPT)
    shape = DecoderShape(**sizes)

    def cost(strategy: Strategy) -> float:
        return float(getattr(count(shape, strategy, *prompt), f"{config.search.flops}_share"))

    numbers = identity(config.model, config.pruning, config.task, config.hardware)
    # What the search chooses is no setting of its own.
    for i, stage in enumerate(numbers["pruning"]["stages"].values(), start=1):
        for name in ("layer", "drop", "criterion"):
            if name != "criterion" or getattr(config.search.axes, f"C{i}", []):
                del stage[name]
    del numbers["pruning"]["name"]
    return Sweep(
        config.search,
        Space(config.search.axes, config.pruning.strategy(), size.n_layers, size.n_image),
        {name: pruning.strategy() for name, pruning in config.search.baselines.items()},
        cost,
        config.task.split,
        numbers,
        most=fitting(
            config.hardware.reuse_mib,
            config.hardware.batch_size,
            sum(prompt),
            size.hidden,
            4 if config.hardware.dtype == "float32" else 2,
        ),
        n_text=size.n_system + size.n_instruction,
    )


def main(arguments: Sequence[str]) -> None:
    if "--status" in arguments:
        from himap.commands import status

        status.main(arguments)
    else:
        launch("sweep", SweepConfig, run, arguments)


def run(config: SweepConfig, folder: Path) -> None:
    """Search, check the front on held-out samples, and write tables and plots into `folder`."""
    sweep = with_weights(plan(config), config.model, folder)
    check(sweep, folder)
    if config.hardware.devices is not None or config.hardware.slurm is not None:
        from himap.commands import sweep_workers

        sweep_workers.run(sweep, config.hardware, folder)
        return
    with present(folder, config.hardware.device):
        _work(config, sweep, folder)


def _work(config: SweepConfig, sweep: Sweep, folder: Path) -> None:
    from himap.commands.record import Recorder
    from himap.report.sweep import write_report
    from himap.report.table import print_front
    from himap.search.model import ModelEvaluator
    from himap.search.study import run as search

    evaluate = ModelEvaluator(config.model, config.task, config.hardware, config.search.heldout_limit)
    evaluate.load([config.task.split, config.search.heldout_split])
    with Recorder(config.tracking, folder, asdict(config), config.search.name) as recorder:
        complete = search(sweep, folder, evaluate, Progress(recorder))
        comparison = write_report(folder)
        if complete:
            recorder.record_study(comparison)
    print_front(comparison)
    if not complete:
        print("another worker still evaluates a trial; the last one to end checks the front")
    for name in ("summary.md", "front.csv", "pareto.png"):
        print(folder / name)


class Progress(Watcher):
    """A bar for each phase of a sweep; finished trials are handed on to be recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._bar: Bar = Quiet()
        self._points: list[Point] = []
        # Steps that the bar shows already for strategies whose evaluation has not ended.
        self._ahead = 0

    def phase(self, name: str, total: int, done: int) -> None:
        self._bar.end()
        self._bar = bar(name) if total else Quiet()
        self._bar.begin(total, done)
        self._ahead = 0

    def progress(self, n: int, share: float) -> None:
        ahead = int(n * share)
        if ahead > self._ahead:
            self._bar.advance(ahead - self._ahead)
            self._ahead = ahead

    def trial(self, finished: Finished) -> None:
        self._recorder.record_trial(finished.number)
        note = f"trial {finished.number} failed: {finished.error}"
        if finished.point is not None:
            self._points.append(finished.point)
            note = f"{finished.point.accuracy:.1f} at {finished.point.share:.0%}, {self._best()}"
        else:
            self._bar.say(note)
        self._end_one(note)

    def point(self, key: str) -> None:
        self._end_one(key)

    def end(self) -> None:
        self._bar.end()

    def _end_one(self, note: str) -> None:
        shown = min(1, self._ahead)
        self._ahead -= shown
        self._bar.advance(1 - shown, note)

    def _best(self) -> str:
        """The most accurate trial that costs at most half, and how many points the front has."""
        front = [self._points[i] for i in pareto(self._points)]
        cheap = [point for point in front if point.share <= 0.5]
        best = f"best at most 50 %: {cheap[-1].accuracy:.1f} at {cheap[-1].share:.0%}, " if cheap else ""
        return f"{best}{len(front)} on the front"
