"""Energy that a GPU has used, as its driver counts it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class Counter:
    """The driver's energy counter of one GPU, through NVML.

    Args:
        device: where the model is.

    Attributes:
        missing: why there is no counter; empty where there is one.
    """

    def __init__(self, device: torch.device) -> None:
        self._read: Callable[[], int] | None = None
        self.missing = ""
        if device.type != "cuda":
            self.missing = f"energy: no counter is read on {device.type}"
            return
        try:
            import pynvml
        except ImportError:
            self.missing = "energy: not read (pip install nvidia-ml-py)"
            return
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except pynvml.NVMLError as error:
            self.missing = f"energy: the driver does not tell ({error})"
            return
        self._read = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)

    def per_run(self, run: Callable[[], Any], seconds: float) -> float:
        """Joules of one run, the mean over as many as fill the time; needs a counter.

        The counter moves some ten times a second and counts the whole device, idle power included.
        """
        assert self._read is not None
        n_runs, started, before = 0, time.perf_counter(), self._read()
        while time.perf_counter() - started < seconds:
            run()
            n_runs += 1
        return (self._read() - before) / 1000 / n_runs


def _uuid(device: torch.device) -> str:
    """NVML counts all GPUs of a machine, torch those that it may see: the name tells them apart."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
