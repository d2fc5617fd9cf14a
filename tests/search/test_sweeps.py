"""Every sweep that is shipped composes, fits its model, and reaches the paper's configuration."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from himap.commands.sweep import SweepConfig, plan
from himap.config.compose import compose
from himap.search.study import first_configurations

SWEEPS = sorted(path.stem for path in (Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_composes_and_starts_evenly(name: str) -> None:
    sweep = plan(compose("sweep", SweepConfig, [f"sweeps={name}"]))
    assert sweep.space.params_of(sweep.baselines["himap"]) is not None
    assert sweep.config.trials >= 60
    shares = sorted(sweep.cost(sweep.space.strategy(params)) for params in first_configurations(sweep))
    assert len(shares) >= sweep.config.seeds
    assert max(b - a for a, b in itertools.pairwise(shares)) < 0.12, "seeds cover the costs"
