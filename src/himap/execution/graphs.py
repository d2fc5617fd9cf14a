"""Captures a function of static shapes as a CUDA graph: one launch in place of thousands."""

from __future__ import annotations

import torch
from torch import Tensor

from himap.errors import UserError
from himap.execution.program import N_INPUTS
from himap.execution.static import Function

_WARM_UP = 3


class Capturer:
    """Captures functions as CUDA graphs that share one pool of memory.

    They may share it because they never run at the same time, each result is copied out at once, and what one
    hands to the other lies in the cache's slots, outside of the pool. Follows "Whole-network capture" and
    "Sharing memory across captures" in PyTorch's notes on CUDA graphs.

    Args:
        device: of the model.

    Raises:
        UserError: the device has no CUDA graphs.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise UserError(
                f"execution=graphs: needs a CUDA device, the model is on {device} (use compiled)."
            )
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Function, arguments: tuple[Tensor, ...]) -> Function:
        """A program's function as one graph.

        Args:
            function: of tensors, without a question to the device.
            arguments: its inputs, which change from call to call, and the slots, which are always these.
        """
        inputs = [tensor.clone() for tensor in arguments[:N_INPUTS]]
        slots = arguments[N_INPUTS:]
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    function(*inputs, *slots)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                outputs = function(*inputs, *slots)

        def replay(*given: Tensor) -> tuple[Tensor, ...]:
            for own, new in zip(inputs, given[:N_INPUTS], strict=True):
                own.copy_(new)
            graph.replay()
            # The graph's own results are overwritten by its next run.
            return tuple(tensor.clone() for tensor in outputs)

        return replay
