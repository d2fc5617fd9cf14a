"""Visual features that enter between the first decoder layers (Qwen3-VL), thinned out with the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from himap.selection import Selection


@contextmanager
def thinned(decoder: Any, current: Callable[[], Selection | None]) -> Iterator[None]:
    """Add deepstack features only where their tokens are still present.

    Where a stage drops before the last of these features has entered, the mask and the features that the
    decoder holds are those of the whole prompt.

    Args:
        decoder: a text decoder with `_deepstack_process(hidden, mask, features)`; any other is left alone.
        current: tells the tokens present now, None outside a prefill.
    """
    if not hasattr(decoder, "_deepstack_process"):
        yield
        return
    add = decoder._deepstack_process

    def add_to_present(hidden: Tensor, mask: Tensor, features: Tensor) -> Tensor:
        selection = current()
        if selection is None or not selection.dropped:
            return add(hidden, mask, features)
        mask = mask.to(selection.positions.device)
        here = selection.pick(mask)
        # Features lie in the order of the mask's true positions, across the whole batch.
        row = (mask.flatten().cumsum(0) - 1).view_as(mask)
        return add(hidden, here, features[row.gather(-1, selection.positions)[here]])

    # On the instance, over the class's method; deleting it brings the method back.
    decoder._deepstack_process = add_to_present
    try:
        yield
    finally:
        del decoder._deepstack_process
