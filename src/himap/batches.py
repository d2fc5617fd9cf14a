"""Asks samples in batches; a batch that fails is asked one by one, and one too large for memory is halved."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from himap.errors import UserError
from himap.progress import Bar

if TYPE_CHECKING:
    from himap.tasks.base import Sample

log = logging.getLogger(__name__)

Row = dict[str, Any]
T = TypeVar("T")

_FAILURES_SHOWN = 5


class Failures:
    """Says which samples failed: the first few one by one, then that there are more.

    Args:
        task: its name, for the messages.
        stop: end at the first sample that failed.
        bar: told about them.
    """

    def __init__(self, task: str, stop: bool, bar: Bar) -> None:
        self._task, self._stop, self._bar = task, stop, bar
        self._n = 0

    def report(self, rows: Sequence[Row]) -> None:
        """Look through the rows of a batch.

        Raises:
            UserError: a sample failed and that is to end the run.
        """
        for row in rows:
            if row["error"] is None:
                continue
            self._n += 1
            message = f"task={self._task}: sample {row['id']} failed: {row['error']}"
            if self._stop:
                raise UserError(f"{message} (mend it, or count it with task.on_bad_sample=skip)")
            if self._n <= _FAILURES_SHOWN:
                self._bar.say(message)
            elif self._n == _FAILURES_SHOWN + 1:
                self._bar.say("more samples fail; result.json lists them all")


def in_batches(
    samples: Sequence[Sample],
    batch_size: int,
    ask: Callable[[Sequence[Sample]], list[T]],
    failed: Callable[[Sample, str], T],
    bar: Bar,
) -> Iterator[list[T]]:
    """Yield what is said of one batch after the other: samples of one picture together, the longest first.

    Args:
        samples: what to ask, in any order.
        batch_size: prompts at once; halved, and said so, where memory does not suffice.
        ask: what is said of a batch, one entry a sample; may raise.
        failed: the entry of a sample that raised, from the reason.
        bar: told about a smaller batch.
    """
    queue = deque(_in_order(samples))
    while queue:
        batch = [queue.popleft() for _ in range(_cut(queue, batch_size))]
        rows, error = _try(ask, batch)
        if rows:
            yield rows
        elif _is_out_of_memory(error) and len(batch) > 1:
            batch_size = len(batch) // 2
            bar.say(f"out of memory with {len(batch)} prompts at once; going on with {batch_size}")
            queue.extendleft(reversed(batch))
            _free_memory()
        elif len(batch) > 1:
            # One of them is to blame; the others must not suffer.
            for sample in batch:
                rows, error = _try(ask, [sample])
                yield rows or [failed(sample, error)]
        else:
            yield [failed(batch[0], error)]


def _in_order(samples: Sequence[Sample]) -> list[Sample]:
    """Samples of one picture side by side, the longest first.

    So there is little padding, memory runs out at once or never, and estimates err to the safe side.
    """
    pictures: dict[tuple[str, str], list[Sample]] = {}
    for sample in sorted(samples, key=_length, reverse=True):
        pictures.setdefault(sample.about, []).append(sample)
    return [sample for together in pictures.values() for sample in together]


def _cut(queue: Sequence[Sample], batch_size: int) -> int:
    """How many samples from the front make a batch; a picture is cut only where half of it stayed empty."""
    size = min(batch_size, len(queue))
    whole = size
    while size < len(queue) and whole > 0 and queue[whole - 1].about == queue[whole].about:
        whole -= 1
    return whole if 2 * whole >= size else size


def _length(sample: Sample) -> tuple[int, int]:
    return len(sample.images), sum(map(len, (sample.question, sample.hint, *sample.choices)))


def _try(ask: Callable[[Sequence[Sample]], list[T]], batch: Sequence[Sample]) -> tuple[list[T], str]:
    """What is said of a batch, or none and why."""
    try:
        return ask(batch), ""
    # Whatever a sample raises (a broken image, a refusing model) is counted and reported as the sample's.
    except Exception as error:
        log.debug("a batch failed", exc_info=True)
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return [], " ".join(reason.split())


def _is_out_of_memory(error: str) -> bool:
    # torch raises plain RuntimeErrors for some devices, and the class differs between them; the words do not.
    return any(word in error for word in ("out of memory", "OutOfMemory", "MemoryError", "not enough memory"))


def _free_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
