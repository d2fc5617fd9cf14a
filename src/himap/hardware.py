"""Checks and settings of the machine before a model is loaded."""

from __future__ import annotations

from himap.config import HardwareConfig
from himap.errors import UserError


def prepare(config: HardwareConfig) -> None:
    """Set the number of threads and make sure that the device is there.

    Raises:
        UserError: torch does not see the device, or several workers are wanted of a verb that has none.
    """
    import torch

    if config.devices is not None or config.slurm is not None:
        key = "devices" if config.slurm is None else "slurm"
        raise UserError(f"hardware.{key}: this verb works in one process (use hardware=cuda, or cpu).")

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


def devices(config: HardwareConfig) -> list[str]:
    """The device of each worker that `hardware.devices` asks for, checked against what torch sees.

    Raises:
        UserError: there is no such device.
    """
    import torch

    n = torch.cuda.device_count()
    if config.devices == "auto":
        if n == 0:
            raise UserError(
                "hardware.devices=auto: torch sees no CUDA device "
                "(use hardware=cpu, or hardware=cpu hardware.devices=[cpu,cpu])."
            )
        return [f"cuda:{i}" for i in range(n)]
    for device in config.devices:
        kind, _, index = device.partition(":")
        if kind == "cuda" and int(index or 0) >= n:
            raise UserError(f"hardware.devices={device}: torch sees {n} CUDA devices (they count from 0).")
    return list(config.devices)
