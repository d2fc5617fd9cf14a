"""Runs a program of static shapes: compiled, captured, or as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from himap.errors import UserError
from himap.execution.base import Steps
from himap.execution.eager import release
from himap.execution.front import Front
from himap.execution.program import Program
from himap.execution.slots import make_slots
from himap.layout import Layout
from himap.models.base import Model
from himap.strategy import Strategy
from himap.support import text_decoder

Function = Callable[..., tuple[Tensor, ...]]
Prepare = Callable[[Function, tuple[Tensor, ...]], Function]
"""Makes a function of tensors fast for arguments of these shapes; may run it, slots are filled anew later."""


class Static:
    """A program with its slots.

    Args:
        model: a loaded model.
        strategy: what to prune.
        example: an encoded batch; others must have its shapes and its numbers of tokens.
        n_new: how many tokens may follow a prompt.
        prepare: makes the prefill fast, and the step.

    Raises:
        Unsupported: the model or the batch has no program of static shapes.
        ConfigError: a stage lies beyond the model's layers.
    """

    def __init__(
        self, model: Model, strategy: Strategy, example: dict[str, Tensor], n_new: int, prepare: Prepare
    ) -> None:
        self._model = model
        self._steps = Steps(n_new)
        layout = self._layout(example)
        n_batch, n_tokens = example["input_ids"].shape
        self._front = Front(model.hf, n_tokens, n_new)
        self._program = Program(model, strategy, layout, spliced=self._front.spliced)
        self._read = example["input_ids"]
        with torch.inference_mode():
            release(model.hf)
            arguments = _plain(*self._front(example))
            config = text_decoder(model.hf).config
            lengths = self._program.lengths
            self._slots = make_slots(config, lengths, n_batch, n_new, like=arguments[2])
            self._tables = arguments[2:]
            self._prefill = prepare(self._program.prefill, (*arguments, *self._slots))
            self._step: Function | None = None
            if n_new:
                self._places = torch.arange(n_new, device=model.device)
                (token,) = _plain(arguments[0][:, -1:])
                self._step = prepare(
                    self._program.step, (token, self._places[:1], *self._tables, *self._slots)
                )
        self._present: tuple[Tensor, ...] = ()

    @property
    def present(self) -> tuple[Tensor, ...]:
        """Positions in the prompt, [B, n], that each stage which drops something left in the last prefill."""
        return self._present

    @torch.inference_mode()
    def prefill(self, inputs: dict[str, Tensor]) -> Tensor:
        release(self._model.hf)
        self._check(inputs)
        arguments = _plain(*self._front(inputs))
        self._tables = arguments[2:]
        logits, *present = self._prefill(*arguments, *self._slots)
        self._present = tuple(present)
        self._steps.begin()
        return logits

    @torch.inference_mode()
    def step(self, token: Tensor) -> Tensor:
        number = self._steps.take()
        assert self._step is not None
        place = self._places[number : number + 1]
        (logits,) = self._step(*_plain(token), place, *self._tables, *self._slots)
        return logits

    def close(self) -> None:
        self._steps.end()
        self._slots, self._step, self._present = [], None, ()
        self._prefill = _closed

    def _layout(self, inputs: dict[str, Tensor]) -> Layout:
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        return Layout.from_ids(ids, self._model.image_token_ids, mask)

    def _check(self, inputs: dict[str, Tensor]) -> None:
        """Refuse prompts that the program was not made for; asks the device only for prompts it has not seen.

        Raises:
            UserError: their numbers of tokens differ from the example's.
        """
        ids = inputs["input_ids"]
        if ids is self._read:
            return
        if self._layout(inputs).counts != self._program.counts:
            raise UserError(
                "input_ids: the prompts have other numbers of tokens than the example "
                "(make an execution for them)."
            )
        self._read = ids


def _plain(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Without gaps in memory: compiled code takes its arguments in one form alone."""
    return tuple(tensor.contiguous() for tensor in tensors)


def _closed(*_: Any) -> tuple[Tensor, ...]:
    raise UserError("execution: is closed (make another).")


def as_it_is(function: Function, arguments: tuple[Tensor, ...]) -> Function:
    """No preparation: one operation at a time."""
    return function
