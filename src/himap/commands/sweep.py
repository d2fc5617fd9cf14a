"""`himap sweep`: search strategies for the front of accuracy against FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from himap.commands.launch import launch
from himap.config import EvaluateConfig
from himap.search.config import SearchConfig


@dataclass
class SweepConfig(EvaluateConfig):
    """`himap evaluate` many times: the strategy's layers and drops come from the search."""

    search: SearchConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        self.search.axes.check_depth(self.model.architecture.n_layers)


def main(arguments: Sequence[str]) -> None:
    launch("sweep", SweepConfig, run, arguments)


def run(config: SweepConfig, folder: Path) -> None:
    """Search, check the front on held-out samples, and write tables and plots into `folder`."""
    from himap.search.sweep import run as search

    search(config, folder)
