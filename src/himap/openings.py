"""Tokens on their way through the layers; prompts about one picture share what they begin with.

Causal attention never looks back: up to its last image token a prompt computes what every other prompt with
the same beginning computes, as long as nothing is dropped. Questions about one picture (POPE asks 18, VQAv2
5.4) thus need its image tokens once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from himap.attention import right_align
from himap.dropping import later_arguments
from himap.entry import Entry
from himap.forked import PathCache
from himap.layout import Layout
from himap.masks import prefill_mask
from himap.selection import Selection, gather_tokens

# Two calls a layer instead of one must spare at least this share of the tokens.
_WORTH = 0.2


class Tokens(Protocol):
    """Tokens between two drops.

    Attributes:
        selection: which they are.
    """

    selection: Selection

    @property
    def hidden(self) -> Tensor:
        """Their states, [B, n, D]."""

    @property
    def last(self) -> Tensor:
        """States whose last place is each prompt's last token, [B, at most n, D]."""

    def step(self, entry: Entry, index: int, cache: PathCache | None) -> None:
        """Go through a layer (0-based), whose keys and values go into the cache."""

    def heard(self, query: Tensor) -> Tensor | None:
        """The queries of all tokens [B, H, n, D] out of those of a call; None while some are to come."""


@dataclass(eq=False)
class Together:
    """Tokens that go through a layer in one call.

    Attributes:
        hidden: [B, n, D].
        selection: which they are.
        changes: arguments of the layers that replace the model's own.
    """

    hidden: Tensor
    selection: Selection
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> Tensor:
        return self.hidden

    def step(self, entry: Entry, index: int, cache: PathCache | None) -> None:
        if cache is not None:
            cache.begin(index)
        self.hidden = entry.layer(index, self.hidden, {**self.changes, "past_key_values": cache})

    def heard(self, query: Tensor) -> Tensor | None:
        return query


@dataclass(frozen=True, eq=False)
class Openings:
    """With what the prompts of a batch begin, and what follows.

    Attributes:
        rows: [U], a row of the batch for each opening.
        sizes: how many prompts begin with each opening; they lie side by side.
        opening: the tokens of the openings, [U, P].
        selection: all tokens, [B, P + S]: the openings in front, the rests behind, each right-aligned.
    """

    rows: Tensor
    sizes: list[int]
    opening: Selection
    selection: Selection

    @property
    def owners(self) -> Tensor:
        """[B], the number of each prompt's opening."""
        numbers = [number for number, size in enumerate(self.sizes) for _ in range(size)]
        return torch.tensor(numbers, device=self.rows.device)

    @classmethod
    def find(cls, layout: Layout, hidden: Tensor) -> Openings | None:
        """Compare each prompt with the one before it, up to its last image token.

        Args:
            layout: of left-padded prompts.
            hidden: [B, T, D], what enters the first layer; images that are equal must be so bit by bit.

        Returns:
            None where too little is shared to be worth it.
        """
        if len(hidden) < 2 or not all(count.n_image for count in layout.counts):
            return None
        begins = layout.present & (layout.image.flip(-1).cumsum(-1).flip(-1) > 0)
        lengths = begins.sum(-1).tolist()
        rests = [count.n_tokens - length for count, length in zip(layout.counts, lengths, strict=True)]
        n_opening, n_rest = max(lengths), max(rests)
        places, real = right_align(begins, n_opening), _real(lengths, n_opening, hidden.device)
        states = gather_tokens(hidden, places).masked_fill(~real[..., None], 0)
        differ = (states[1:] != states[:-1]).flatten(1).any(-1).tolist()
        rows = [0, *(row for row, other in enumerate(differ, 1) if other or lengths[row] != lengths[row - 1])]
        n_computed = len(rows) * n_opening + len(hidden) * n_rest
        if n_computed > (1 - _WORTH) * hidden.shape[0] * hidden.shape[1]:
            return None
        at = torch.tensor(rows, device=hidden.device)
        even = min(lengths) == n_opening
        opening = Selection(
            places[at], None if even else real[at], [layout.counts[row] for row in rows], dropped=True
        )
        behind = right_align(layout.present & ~begins, n_rest)
        all_real = even and min(rests) == n_rest
        selection = Selection(
            torch.cat([places, behind], -1),
            None if all_real else torch.cat([real, _real(rests, n_rest, hidden.device)], -1),
            layout.counts,
            dropped=True,
        )
        return cls(at, [after - row for row, after in pairwise([*rows, len(hidden)])], opening, selection)


class Shared:
    """Tokens of prompts that begin alike: in each layer first the openings, then what follows them.

    Args:
        openings: of the batch.
        entry: of the batch.
        implementation: name of the attention function.
    """

    def __init__(self, openings: Openings, entry: Entry, implementation: str) -> None:
        self.selection = openings.selection
        self._sizes = openings.sizes
        self._owners = openings.owners
        n_opening = openings.opening.positions.shape[-1]
        rest = self.selection.positions[:, n_opening:]
        self._opening = gather_tokens(entry.hidden[openings.rows], openings.opening.positions)
        self._rest = gather_tokens(entry.hidden, rest)
        tables = entry.arguments["position_embeddings"]
        own = tuple(t if t.shape[-3] == 1 else t.index_select(-3, openings.rows) for t in tables)
        self._for_opening = later_arguments(openings.opening, self._opening, own, implementation)
        self._for_rest = {
            "position_embeddings": tuple(gather_tokens(table, rest) for table in tables),
            "attention_mask": prefill_mask(self.selection.valid, self._rest, implementation, n_opening),
            "position_ids": None,
        }
        self._query: Tensor | None = None
        # Of the layer that runs now: the openings' keys and values; all of them where nobody keeps them.
        self._beginning = PathCache.empty(entry.n_layers, 0)
        self._unkept = PathCache.empty(entry.n_layers, 0)

    @property
    def hidden(self) -> Tensor:
        return torch.cat([self._opening[self._owners], self._rest], 1)

    @property
    def last(self) -> Tensor:
        return self._rest

    def step(self, entry: Entry, index: int, cache: PathCache | None) -> None:
        whole = self._unkept if cache is None else cache
        self._query = None
        first = {**self._for_opening, "past_key_values": self._beginning}
        self._opening = entry.layer(index, self._opening, first)
        whole.begin_behind(index, self._beginning, self._sizes, self._rest.shape[1])
        self._beginning.begin(index)  # forget
        self._rest = entry.layer(index, self._rest, {**self._for_rest, "past_key_values": whole})
        if cache is None:
            whole.begin(index)  # forget
        else:
            whole.end_prompt(index)

    def heard(self, query: Tensor) -> Tensor | None:
        if self._query is None:
            self._query = query
            return None
        opening, self._query = self._query, None
        return torch.cat([opening[self._owners], query], 2)


def _real(lengths: list[int], width: int, device: torch.device) -> Tensor:
    """[B, width] bool, true at the last `lengths` places of each row."""
    n_before = torch.tensor([width - length for length in lengths], device=device)
    return torch.arange(width, device=device) >= n_before[:, None]
