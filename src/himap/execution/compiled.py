"""Compiles a function of static shapes with TorchInductor."""

from __future__ import annotations

import torch
import torch._inductor
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from himap.execution.static import Function


def traced(function: Function, arguments: tuple[Tensor, ...]) -> fx.GraphModule:
    """The plain tensor operations of a function, its weights as attributes of the graph.

    Nothing of the model's Python is left in it, the taps are needed only now, and a question to the device
    would have raised.

    Args:
        function: of tensors.
        arguments: give shapes, dtypes and device.
    """
    return make_fx(function)(*arguments)


def compiled(function: Function, arguments: tuple[Tensor, ...]) -> Function:
    """The function as one compiled graph, for arguments of these shapes; takes some ten seconds.

    The graph goes to the compiler directly: torch.compile would look through a hundred weights at each call,
    to find them unchanged.

    Args:
        function: of tensors.
        arguments: give shapes, dtypes and device.
    """
    with torch.no_grad():
        return torch._inductor.compile(traced(function, arguments), list(arguments))
