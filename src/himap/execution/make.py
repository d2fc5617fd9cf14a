"""From a name to an execution."""

from __future__ import annotations

from torch import Tensor

from himap.errors import UserError
from himap.execution.base import Execution
from himap.execution.compiled import compiled
from himap.execution.eager import Eager
from himap.execution.graphs import Capturer
from himap.execution.static import Static
from himap.models.base import Model
from himap.rules import one_of
from himap.strategy import Strategy

KINDS = ("eager", "compiled", "graphs")


def make(kind: str, model: Model, strategy: Strategy, example: dict[str, Tensor], n_new: int) -> Execution:
    """An execution of a model under a strategy.

    Args:
        kind: `eager` (as an evaluation runs it), `compiled` (torch.compile; on a GPU its kernels are captured
            as a CUDA graph) or `graphs` (the model's own kernels as a CUDA graph).
        model: a loaded model; the executions of one model take turns.
        strategy: what to prune.
        example: an encoded batch; prompts of these shapes are run.
        n_new: how many tokens may follow a prompt.

    Raises:
        ConfigError: no such kind, or a stage lies beyond the model's layers.
        Unsupported: the model or the batch cannot be run in that kind; the message says why.
        UserError: `n_new` is negative.
    """
    one_of("execution", kind, KINDS)
    if n_new < 0:
        raise UserError(f"n_new={n_new}: must not be negative (the number of tokens after a prompt).")
    if kind == "eager":
        return Eager(model, strategy, n_new)
    if kind == "compiled" and model.device.type != "cuda":
        return Static(model, strategy, example, n_new, compiled)
    capture = Capturer(model.device)
    if kind == "graphs":
        return Static(model, strategy, example, n_new, capture)
    # Compiled kernels are launched one by one, so that on a GPU they are captured, too.
    return Static(model, strategy, example, n_new, lambda f, given: capture(compiled(f, given), given))
