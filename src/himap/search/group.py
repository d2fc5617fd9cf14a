"""Groups of trials that are evaluated in one pass: what they cost together, and how many make a group."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from himap.trie import Ranking, ranking

if TYPE_CHECKING:
    from himap.strategy import Strategy

# Past so many a pass has little left to share, and a kill interrupts more at once.
MOST = 32
# A sampler that learns chooses at most this share of what it knows before it hears of the outcome.
_SHARE_OF_KNOWN = 0.25

Dropped = tuple[tuple[Ranking, int], ...]
"""The stages that have dropped something, each with the number of image tokens that it left."""

Layers = dict[tuple[int, Dropped], int]
"""Tokens in a layer, by the layer's index and what was dropped before it."""


@dataclass(frozen=True)
class Units:
    """What strategies cost in tokens x layers, one by one or in one pass.

    In one pass a layer runs once for all strategies that have dropped the same tokens before it. The ranking
    (0.04 % of a 7B prefill) and the answers' decoding are not counted.

    Attributes:
        n_layers: decoder layers.
        n_image: image tokens of a prompt.
        n_text: its other tokens.
    """

    n_layers: int
    n_image: int
    n_text: int

    def layers(self, strategy: Strategy) -> Layers:
        """The layers that a strategy runs; those that another one shares have the same key there."""
        found: Layers = {}
        n = self.n_image
        dropped: Dropped = ()
        stages = list(strategy.stages)
        for index in range(self.n_layers):
            while stages and stages[0].layer == index:
                stage = stages.pop(0)
                kept = stage.n_kept(n)
                if kept != n:
                    n, dropped = kept, (*dropped, (ranking(stage), kept))
            found[index, dropped] = self.n_text + n
        return found

    def new(self, strategy: Strategy, shared: Layers) -> float:
        """The share of a strategy's units that a pass over `shared` does not run anyway."""
        layers = self.layers(strategy)
        return sum(n for layer, n in layers.items() if layer not in shared) / sum(layers.values())

    def apart(self, strategies: Iterable[Strategy]) -> int:
        """Units of evaluating strategies one by one."""
        return sum(sum(self.layers(strategy).values()) for strategy in strategies)

    def together(self, strategies: Iterable[Strategy]) -> int:
        """Units of evaluating strategies in one pass."""
        union: Layers = {}
        for strategy in strategies:
            union |= self.layers(strategy)
        return sum(union.values())


def fitting(mib: float, batch_size: int, n_tokens: int, hidden: int, bytes_per_number: int) -> int:
    """How many strategies a group may have where each keeps the hidden states of a batch at its fork.

    Args:
        mib: memory for them.
        batch_size: prompts at once.
        n_tokens: tokens of a prompt.
        hidden: the decoder's width.
        bytes_per_number: of its dtype.
    Returns:
        1 to `MOST`.
    """
    each = batch_size * n_tokens * hidden * bytes_per_number
    return max(1, min(MOST, int(mib * 2**20 / each)))


def size(most: int, n_left: int, n_workers: int, n_waiting: int, n_known: int | None) -> int:
    """How many trials a worker takes at once where the user leaves it to the search.

    Args:
        most: what fits.
        n_left: configurations that the budget still has.
        n_workers: processes that share them.
        n_waiting: configurations that the search starts with and nobody has begun.
        n_known: finished trials, for a sampler that learns from them; None for one that does not.
    """
    n = min(most, math.ceil(n_left / n_workers))
    if n_waiting:
        n = min(n, math.ceil(n_waiting / n_workers))
    elif n_known is not None:
        n = min(n, int(_SHARE_OF_KNOWN * n_known))
    return max(1, n)
