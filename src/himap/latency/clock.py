"""Times executions side by side: in rounds, in random order, the device waited for on either side."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from himap.execution import Execution

# Below this a pruner that is put on, or caches that another run left cold, would show in the time: a run that
# short follows an untimed one.
_SETTLE_S = 0.2


@dataclass
class Job:
    """One way of running one strategy, with what the rounds have measured.

    Attributes:
        strategy: its label.
        kind: the execution's name.
        execution: runs it.
        answer: ids of the new tokens but the last, [n - 1, B, 1]; empty to time the prefill alone.
        prefill_ms: a value each round.
        decode_ms: the same for all tokens after the first.
    """

    strategy: str
    kind: str
    execution: Execution
    answer: Tensor
    prefill_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)

    def run(self, inputs: dict[str, Tensor]) -> None:
        """One prompt and its answer, untimed; returns before the device is done."""
        self.execution.prefill(inputs).argmax(-1)
        self._decode()

    def time(self, inputs: dict[str, Tensor], device: torch.device) -> None:
        """One prompt and its answer, timed."""
        if _short(self.prefill_ms):
            self.execution.prefill(inputs)
        start = _now(device)
        self.execution.prefill(inputs).argmax(-1)
        middle = _now(device)
        self._decode()
        end = _now(device)
        self.prefill_ms.append(1000 * (middle - start))
        self.decode_ms.append(1000 * (end - middle))

    def forget(self) -> None:
        """Drop what the warm-up measured."""
        self.prefill_ms.clear()
        self.decode_ms.clear()

    def _decode(self) -> None:
        # The likeliest token is found, as greedy decoding does, but the next one is given: what a model of
        # random weights says could be a placeholder. Nothing here waits for the device.
        for token in self.answer:
            self.execution.step(token).argmax(-1)


def rounds(
    jobs: Mapping[str, Sequence[Job]],
    inputs: dict[str, Tensor],
    device: torch.device,
    n_rounds: int,
    order: random.Random,
    after: Callable[[], None],
) -> None:
    """Time every job once a round.

    Args:
        jobs: of each strategy; they stand together within a round, in random order like the strategies.
        inputs: the prompts.
        device: waited for.
        n_rounds: repetitions.
        order: draws the order.
        after: called after each round.
    """
    with _no_garbage():
        for _ in range(n_rounds):
            for strategy in order.sample(list(jobs), len(jobs)):
                for job in order.sample(list(jobs[strategy]), len(jobs[strategy])):
                    job.time(inputs, device)
            gc.collect()
            after()


def time_ms(run: Callable[[], object], device: torch.device, before: Sequence[float]) -> float:
    """Time a function once.

    Args:
        run: what is timed.
        device: waited for.
        before: what it took until now, in ms; where that was short, or unknown, an untimed call comes first.
    """
    if _short(before):
        run()
    start = _now(device)
    run()
    return 1000 * (_now(device) - start)


def _short(before: Sequence[float]) -> bool:
    return not before or before[-1] < 1000 * _SETTLE_S


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep Python's collector out of the times, as timeit does."""
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()  # a collection between two rounds looks at what they left alone
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
