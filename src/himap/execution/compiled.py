"""Compiles a function of static shapes with torch.compile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from himap.execution.static import Function


def compiled(function: Function, arguments: tuple[Tensor, ...], backend: str = "inductor") -> Function:
    """The function as one compiled graph.

    It is traced to plain tensor operations first. So nothing of the model's Python is left to be compiled or
    guarded, the taps are needed only now, and a question to the device would raise.

    Args:
        function: of tensors; its weights become constants of the graph.
        arguments: give shapes, dtypes and device.
        backend: of torch.compile.
    """
    graph = make_fx(function)(*arguments)
    options: dict[str, Any] = {}
    if backend == "inductor":
        # Arguments have the shapes of the execution, so nothing is guarded. On a CPU constant weights
        # are packed once for the matrix products; on a GPU that would only make copies of them.
        options = {"guard_filter_fn": _no_guards, "freezing": arguments[0].device.type == "cpu"}
    return torch.compile(graph, fullgraph=True, dynamic=False, backend=backend, options=options or None)


def _no_guards(guards: Any) -> list[bool]:
    return [False] * len(guards)
