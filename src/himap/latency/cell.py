"""One cell of a benchmark: all strategies at one shape, prepared, timed in rounds, and weighed."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from himap.errors import UserError
from himap.execution import Execution, make
from himap.latency.clock import Job, rounds, time_ms
from himap.latency.config import LatencyConfig
from himap.latency.energy import Counter
from himap.latency.memory import how, peak
from himap.latency.prompt import answers, made_up
from himap.latency.released import Released
from himap.latency.shape import Shape
from himap.latency.tower import given_features
from himap.models.base import Model
from himap.strategy import Stage, Strategy

log = logging.getLogger(__name__)

_ENERGY_BLOCKS = 3
_LONGEST_REASON = 300


@dataclass
class Raw:
    """What was measured at one shape, before anything is summarised.

    Attributes:
        shape: of the prompts.
        tower_ms: vision tower and projector, a value each round.
        jobs: [strategy, execution] -> prefill and decode, in ms, a value each round.
        fixed_ms: strategy -> the prefill with its ranking replaced by a fixed one that asks no attention, a
            value each round, in the execution that `fixed_kind` names.
        fixed_kind: strategy -> execution.
        peak_bytes: [strategy, execution] -> memory beyond weights and inputs; None where nobody counts.
        energy_j: strategy -> joules an answer, a few readings; empty without a counter.
        refused: execution -> why it was left out, for some strategy.
        notes: what a reader of the numbers needs to know.
    """

    shape: Shape
    tower_ms: list[float] = field(default_factory=list)
    jobs: dict[tuple[str, str], tuple[list[float], list[float]]] = field(default_factory=dict)
    fixed_ms: dict[str, list[float]] = field(default_factory=dict)
    fixed_kind: dict[str, str] = field(default_factory=dict)
    peak_bytes: dict[tuple[str, str], int | None] = field(default_factory=dict)
    energy_j: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def n_steps(config: LatencyConfig) -> int:
    """How often `measure` calls `advance`."""
    return len(config.pruning) * len(config.execution) + config.rounds


def measure(model: Model, config: LatencyConfig, shape: Shape, advance: Callable[[], None]) -> Raw:
    """Time every strategy at one shape.

    Args:
        model: a loaded model.
        config: what to compare, and how often.
        shape: of the prompts.
        advance: called `n_steps` times.

    Raises:
        UserError: the model has no such prompts, no execution can run, or the memory does not suffice.
    """
    device = model.device
    try:
        with ExitStack() as stack:
            return _measure(model, config, shape, advance, stack)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"benchmark.batch_size={shape.batch_size}: {shape.text} do not fit into the memory of {device} "
            "(use smaller shapes, or fewer executions)."
        ) from error
    finally:
        if device.type == "cuda":
            gc.collect()  # captured functions hold one another
            torch.cuda.empty_cache()


def _measure(
    model: Model, config: LatencyConfig, shape: Shape, advance: Callable[[], None], stack: ExitStack
) -> Raw:
    raw = Raw(shape, notes=[how(model.device)])
    inputs = made_up(model, shape, config.seed)
    answer = answers(model, shape, config.seed)[:-1]
    tower = stack.enter_context(given_features(model, inputs))
    strategies = {name: pruning.strategy() for name, pruning in config.pruning.items()}
    jobs: dict[str, list[Job]] = {name: [] for name in strategies}
    for name, strategy in strategies.items():
        for kind in config.execution:
            try:
                with peak(model.device) as taken:
                    job = Job(name, kind, _make(kind, model, strategy, inputs, shape.n_new), answer)
                    stack.callback(job.execution.close)
                    job.run(inputs)
                for _ in range(config.warmup):
                    job.time(inputs, model.device)
                jobs[name].append(job)
                raw.peak_bytes[name, kind] = taken.n_bytes
            except torch.OutOfMemoryError:
                raise
            except UserError as error:
                raw.refused[kind] = str(error)
            # A machine without a compiler, say: what the other executions take is no less true.
            except Exception as error:
                log.debug("%s, %s", name, kind, exc_info=True)
                raw.refused[kind] = f"{name}: {_line(error)}"
            advance()
    for name in strategies:
        if not jobs[name]:
            kinds = ",".join(config.execution)
            raise UserError(f"benchmark.execution=[{kinds}]: {name} cannot be run: {_reasons(raw)}")
    fixed = _fixed_jobs(model, strategies, jobs, inputs, stack)
    for name, job in fixed.items():
        job.run(inputs)
        raw.fixed_kind[name], raw.fixed_ms[name] = job.kind, job.prefill_ms
    for job in [job for several in jobs.values() for job in several]:
        job.forget()
        raw.jobs[job.strategy, job.kind] = job.prefill_ms, job.decode_ms

    def after() -> None:
        raw.tower_ms.append(time_ms(tower, model.device, raw.tower_ms))
        advance()

    everything = {name: [*several] for name, several in jobs.items()}
    for name, job in fixed.items():
        everything[name].append(job)
    rounds(everything, inputs, model.device, config.rounds, random.Random(config.seed), after)
    _weigh(model, config, jobs, inputs, raw)
    return raw


def _make(kind: str, model: Model, strategy: Strategy, inputs: dict[str, Tensor], n_new: int) -> Execution:
    if kind == "released":
        return Released(model, strategy)
    return make(kind, model, strategy, inputs, n_new - 1)


def _fixed_jobs(
    model: Model,
    strategies: dict[str, Strategy],
    jobs: dict[str, list[Job]],
    inputs: dict[str, Tensor],
    stack: ExitStack,
) -> dict[str, Job]:
    """For each strategy that asks attention, its double that keeps as many tokens without asking.

    What the two differ by is what scoring costs, however an execution overlaps or fuses it. The double runs
    as the strategy's fastest prefill did in the warm-up.
    """
    found = {}
    for name, strategy in strategies.items():
        double = Strategy(name, tuple(map(_fixed, strategy.stages)))
        if double == strategy:
            continue
        kind = min(jobs[name], key=lambda job: min(job.prefill_ms)).kind
        job = Job(name, kind, _make(kind, model, double, inputs, 1), torch.empty(0))
        stack.callback(job.execution.close)
        found[name] = job
    return found


def _fixed(stage: Stage) -> Stage:
    return stage if stage.criterion in ("random", "uniform") else replace(stage, criterion="uniform")


def _weigh(
    model: Model, config: LatencyConfig, jobs: dict[str, list[Job]], inputs: dict[str, Tensor], raw: Raw
) -> None:
    """Read the energy of whole answers, each strategy in its fastest execution, in turns."""
    counter = Counter(model.device)
    if counter.missing:
        raw.notes.append(counter.missing)
        return
    order = random.Random(config.seed)
    for _ in range(_ENERGY_BLOCKS):
        for name in order.sample(list(jobs), len(jobs)):
            job = min(jobs[name], key=lambda job: min(job.prefill_ms) + min(job.decode_ms))

            def run(job: Job = job) -> None:
                job.run(inputs)
                torch.cuda.synchronize(model.device)

            raw.energy_j.setdefault(name, []).append(counter.per_run(run, config.energy_s))


def _line(error: Exception) -> str:
    """An error of other people's code as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_REASON]


def _reasons(raw: Raw) -> str:
    return "; ".join(f"{kind}: {reason}" for kind, reason in raw.refused.items())
