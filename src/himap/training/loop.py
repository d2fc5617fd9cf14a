"""What both phases share: optimisers, schedule, checkpoints, log."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from himap.errors import UserError
from himap.files import append_jsonl, write_bytes_atomic
from himap.training.config import PhaseConfig, TrainConfig

_WARM_UP = 100


class Trainer:
    """Runs the steps of one phase, resumes from its checkpoint, and logs.

    Args:
        phase: name of the phase; names its checkpoint.
        modules: what is trained and saved.
        loss: step -> (scalar loss, numbers to log or an empty dict).
        folder: for checkpoint and log.
    """

    def __init__(
        self,
        phase: str,
        settings: PhaseConfig,
        config: TrainConfig,
        modules: nn.ModuleDict,
        loss: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
        folder: Path,
    ) -> None:
        self.phase, self.settings, self.config = phase, settings, config
        self.modules, self.loss = modules, loss
        self.optimisers = _optimisers(modules, settings)
        self.peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        self.checkpoint, self.log = folder / f"{phase}.pt", folder / "log.jsonl"

    def run(self, progress: Callable[[str, int, int, dict[str, float]], None]) -> None:
        """Train to the last step; `progress` gets (phase, step, steps, numbers) after each step."""
        step = self._resume()
        parameters = [p for p in self.modules.parameters() if p.requires_grad]
        started, first = time.monotonic(), step
        while step < self.settings.steps:
            self._set_rate(step)
            loss, numbers = self.loss(step)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimiser in self.optimisers:
                optimiser.step()
                optimiser.zero_grad()
            step += 1
            if numbers or step % self.config.log_every == 0:
                numbers = {"loss": loss.item(), "gradient_norm": norm.item()} | numbers
                seconds = (time.monotonic() - started) / (step - first)
                row = {"phase": self.phase, "step": step, "seconds_per_step": round(seconds, 3)}
                append_jsonl(self.log, [row | _rounded(numbers)])
            progress(self.phase, step, self.settings.steps, numbers)
            if step % self.config.checkpoint_every == 0 or step == self.settings.steps:
                self._save(step)

    def _set_rate(self, step: int) -> None:
        """Linear warm-up, then linear to zero."""
        factor = min((step + 1) / _WARM_UP, 1 - step / self.settings.steps)
        for optimiser, peaks in zip(self.optimisers, self.peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def _save(self, step: int) -> None:
        state = {
            "recipe": self.config.recipe(),
            "step": step,
            "modules": self.modules.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes_atomic(self.checkpoint, buffer.getvalue())

    def _resume(self) -> int:
        if not self.checkpoint.exists():
            return 0
        state = torch.load(self.checkpoint, map_location=self.config.device, weights_only=True)
        before, now = state["recipe"], self.config.recipe()
        changed = [f"{key}={now[key]} (was {before[key]})" for key in now if now[key] != before[key]]
        if changed:
            raise UserError(f"{', '.join(changed)}: {self.checkpoint} has another recipe (use a new folder).")
        self.modules.load_state_dict(state["modules"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        return int(state["step"])


def _optimisers(modules: nn.ModuleDict, settings: PhaseConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices inside transformer layers, AdamW for everything else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in modules.named_parameters():
        if parameter.requires_grad:
            inside = ".layers." in name and parameter.ndim == 2
            (matrices if inside else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=settings.learning_rate, weight_decay=0.01)
    return [muon, torch.optim.AdamW(others, lr=settings.other_learning_rate, weight_decay=0.0)]


def _rounded(numbers: dict[str, float]) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in numbers.items()}


def prefetched(make: Callable[[int], Any]) -> Callable[[int], Any]:
    """`make(step)` computed one step ahead in a thread, so that drawing does not hold up the optimiser."""
    pool = ThreadPoolExecutor(max_workers=1)
    ahead: dict[int, Future[Any]] = {}

    def get(step: int) -> Any:
        future = ahead.pop(step, None) or pool.submit(make, step)
        ahead[step + 1] = pool.submit(make, step + 1)
        return future.result()

    return get
