"""What an execution is, and the checks that all of them share."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from himap.errors import UserError


class Execution(Protocol):
    """Runs one prompt shape of a model under a strategy again and again."""

    def prefill(self, inputs: dict[str, Tensor]) -> Tensor:
        """Read a batch of prompts and begin a new sequence of steps.

        Args:
            inputs: as `Model.encode` gives them, of the example's shapes.

        Returns:
            [B, vocab], the logits of each prompt's last position.
        """

    def step(self, token: Tensor) -> Tensor:
        """Read one more token.

        Args:
            token: [B, 1], ids.

        Returns:
            [B, vocab], the logits of what follows it.

        Raises:
            UserError: there was no prefill, or more than `n_new` tokens follow it.
        """

    def close(self) -> None:
        """Leave the model as it was found and free what was set aside."""


class Steps:
    """Counts the tokens that followed a prefill.

    Args:
        n_new: how many may.
    """

    def __init__(self, n_new: int) -> None:
        self.n_new = n_new
        self.taken: int | None = None

    def begin(self) -> None:
        """A prefill has been run."""
        self.taken = 0

    def end(self) -> None:
        """What the last prefill left is gone."""
        self.taken = None

    def take(self) -> int:
        """The number of tokens before this one.

        Raises:
            UserError: there was no prefill, or there have been `n_new` tokens.
        """
        if self.taken is None:
            raise UserError("step: needs a prefill of this execution right before it (call prefill first).")
        if self.taken == self.n_new:
            raise UserError(f"n_new={self.n_new}: no room for more tokens (make the execution with more).")
        self.taken += 1
        return self.taken - 1
