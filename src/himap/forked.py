"""A key-value cache for the path of a walk through branches: layers are begun anew, answers are rewound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

# Slots that are added when an answer outgrows its layer.
_ROOM = 16


class PathLayer(DynamicLayer):
    """One layer's keys and values, with room behind the prompt, so that new tokens are cheap.

    Several answers may follow one prompt, one after the other: `rewind` forgets the last one.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._n_prompt = self._n = 0
        self._store: tuple[Tensor, Tensor] | None = None

    def begin(self) -> None:
        """The next tokens are a prompt; what was here is forgotten."""
        self._store, self._n, self._n_prompt = None, 0, 0
        self.is_initialized = False

    def begin_behind(self, opening: PathLayer, sizes: Sequence[int], n_rest: int) -> None:
        """The next tokens are the rest of prompts that begin with others' tokens.

        Args:
            opening: holds what the prompts begin with.
            sizes: for each row of `opening` how many prompts begin with it; they lie side by side.
            n_rest: tokens to come until `end_prompt`.
        """
        assert opening._store is not None
        self.begin()
        self.lazy_initialization(*opening._store)
        room = n_rest + self._room
        keys, values = (_handed_out(states, opening._n, sizes, room) for states in opening._store)
        self._store, self._n = (keys, values), opening._n

    def end_prompt(self) -> None:
        """All that is here is the prompt."""
        self._n_prompt = self._n

    def rewind(self) -> None:
        """Forget what followed the prompt."""
        self._n = self._n_prompt

    def rows(self, first: int, last: int) -> PathLayer:
        """Some samples of the prompt, in the same memory."""
        assert self._store is not None
        keys, values = self._store
        part = PathLayer(self._room)
        part.lazy_initialization(keys, values)
        part._store = (keys[first:last], values[first:last])
        part._n = part._n_prompt = self._n_prompt
        return part

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens, [B, H_kv, n, D] each; returns all tokens so far."""
        first, last = self._n, self._n + key_states.shape[-2]
        if self._store is None:
            self.lazy_initialization(key_states, value_states)
            self._store = (_roomy(key_states, self._room), _roomy(value_states, self._room))
            self._n_prompt = self._n = last
            return key_states, value_states
        if last > self._store[0].shape[-2]:
            self._store = (_roomy(self._store[0], _ROOM), _roomy(self._store[1], _ROOM))
        for store, new in zip(self._store, (key_states, value_states), strict=True):
            store[..., first:last, :] = new
        self._n = last
        keys, values = self._store
        return keys[..., :last, :], values[..., :last, :]

    def get_seq_length(self) -> int:
        return self._n

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens.

        Args:
            tokens_to_remove: their number, negative as transformers wants it.
        """
        self._n -= abs(tokens_to_remove)


def _roomy(states: Tensor, room: int) -> Tensor:
    """A copy [B, H, n + room, D] whose first n tokens are the given ones."""
    n = states.shape[-2]
    store = states.new_empty(*states.shape[:-2], n + room, states.shape[-1])
    store[..., :n, :] = states
    return store


def _handed_out(states: Tensor, n: int, sizes: Sequence[int], room: int) -> Tensor:
    """The first n tokens of each row for as many rows as `sizes` says, with room behind them."""
    store = states.new_empty(sum(sizes), states.shape[1], n + room, states.shape[-1])
    first = 0
    for row, size in zip(states, sizes, strict=True):
        # Written to its place at once; gathering the rows would be a copy more.
        store[first : first + size, :, :n] = row[:, :n]
        first += size
    return store


class PathCache(Cache):
    """The cache of the path that a walk is on now.

    Args:
        path: its layers.
    """

    def __init__(self, path: Sequence[PathLayer]) -> None:
        super().__init__(layers=[*path])
        self._path = path

    @classmethod
    def empty(cls, n_layers: int, n_new: int) -> PathCache:
        """For prompts to come, with room for answers of that many tokens (longer ones cost a copy)."""
        return cls([PathLayer(min(n_new, _ROOM)) for _ in range(n_layers)])

    def begin(self, index: int) -> None:
        """The next tokens of that layer are a prompt."""
        self._path[index].begin()

    def begin_behind(self, index: int, opening: PathCache, sizes: Sequence[int], n_rest: int) -> None:
        """The next tokens of that layer are the rest of prompts; see `PathLayer.begin_behind`."""
        self._path[index].begin_behind(opening._path[index], sizes, n_rest)

    def end_prompt(self, index: int) -> None:
        """All that is in that layer is the prompt."""
        self._path[index].end_prompt()

    def rewind(self) -> None:
        """Forget the answer, keep the prompt."""
        for layer in self._path:
            layer.rewind()

    def part(self, layer: int, first: int, last: int) -> PathCache:
        """The path of some samples from a layer (0-based) on; the layers before it hold only theirs."""
        return PathCache([*self._path[:layer], *(deep.rows(first, last) for deep in self._path[layer:])])
