"""`himap train`: train the embedded model on drawn scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from himap.commands.launch import launch
from himap.progress import Bar, bar
from himap.training.config import TrainConfig


def main(arguments: Sequence[str]) -> None:
    launch("train", TrainConfig, run, arguments)


def run(config: TrainConfig, folder: Path) -> None:
    """Train, going on from the checkpoints in `folder`."""
    from himap.training.main import run as train

    print(train(config, folder, Phases()))


class Phases:
    """One bar for each phase of the training, with the last numbers behind it."""

    def __init__(self) -> None:
        self._phase = ""
        self._bar: Bar | None = None
        self._note = ""

    def __call__(self, phase: str, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        if self._bar is None or phase != self._phase:
            self._phase, self._bar = phase, bar(f"training, {phase}")
            self._bar.begin(steps, step - 1)
        if numbers:
            self._note = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
        self._bar.advance(1, self._note)
        if step == steps:
            self._bar.end()
