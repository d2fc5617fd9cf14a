"""Checks and settings of the machine before a model is loaded."""

from __future__ import annotations

from himap.config import HardwareConfig
from himap.errors import UserError


def prepare(config: HardwareConfig) -> None:
    """Set the number of threads and make sure that the device is there.

    Raises:
        UserError: torch does not see the device.
    """
    import torch

    if config.n_threads is not None:
        torch.set_num_threads(config.n_threads)
    kind, _, index = config.device.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"hardware.device={config.device}: torch sees no CUDA device (use hardware=cpu).")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UserError(
            f"hardware.device={config.device}: torch sees {torch.cuda.device_count()} CUDA devices "
            "(they count from 0)."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"hardware.device={config.device}: torch sees no MPS device (use hardware=cpu).")
