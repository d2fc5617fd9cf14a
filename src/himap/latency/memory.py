"""What a run takes of the device's memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from himap.flops import DecoderShape
from himap.latency.shape import Shape
from himap.strategy import Strategy

MIB = 2**20


class Peak:
    """The most bytes that tensors made inside a block took at one time; None where nobody counts."""

    n_bytes: int | None = None


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """Watch a block of code.

    On CUDA it is the allocator's own maximum. On the CPU it is the highest sum of what torch's allocator gave
    and took back, as its profiler records it; memory that libraries take past that allocator is not seen.
    """
    found = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        torch.cuda.synchronize(device)
        found.n_bytes = torch.cuda.max_memory_allocated(device) - before
    elif device.type == "cpu":
        with _quiet_stderr(), torch.autograd.profiler.profile(use_cpu=True, profile_memory=True) as profile:
            yield found
        found.n_bytes = _highest(profile)
    else:
        yield found


def how(device: torch.device) -> str:
    """In words, what `peak` counts on a device."""
    if device.type == "cuda":
        return "peak memory: weights and the most that torch.cuda's allocator had given out beyond them"
    if device.type == "cpu":
        return (
            "peak memory: weights and the most that torch's allocator had given out beyond them (profiler); "
            "not the process's resident size"
        )
    return f"peak memory: no counter for {device.type}"


def weights_bytes(hf: Any) -> int:
    """Memory of a model's parameters and buffers; tied ones count once."""
    tensors = [*hf.parameters(), *hf.buffers()]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def cache_bytes(decoder: DecoderShape, strategy: Strategy, shape: Shape, n_bytes: int) -> int:
    """Keys and values of the prompt's tokens, and of the new ones but the last, which is never read.

    Args:
        n_bytes: of one number.
    """
    n_text = shape.n_system + shape.n_instruction + shape.n_new - 1
    n_tokens = sum(n_text + n for n in strategy.tokens_per_layer(shape.n_image, decoder.n_layers))
    return shape.batch_size * n_tokens * 2 * decoder.n_kv_heads * decoder.head_dim * n_bytes


def _highest(profile: Any) -> int:
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """The profiler's C++ code talks to standard error, past Python."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
