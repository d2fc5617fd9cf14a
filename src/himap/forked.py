"""A key-value cache for the path of a walk through branches: layers are begun anew, answers are rewound."""

from __future__ import annotations

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

    def rewind(self) -> None:
        """Forget what followed the prompt."""
        self._n = self._n_prompt

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


class PathCache(Cache):
    """The cache of the path that a walk is on now.

    Args:
        n_layers: of the decoder.
        n_new: tokens that an answer may have.
    """

    def __init__(self, n_layers: int, n_new: int) -> None:
        self._path = [PathLayer(min(n_new, _ROOM)) for _ in range(n_layers)]
        super().__init__(layers=[*self._path])

    def begin(self, index: int) -> None:
        """The next tokens of that layer are a prompt."""
        self._path[index].begin()

    def rewind(self) -> None:
        """Forget the answer, keep the prompt."""
        for layer in self._path:
            layer.rewind()
