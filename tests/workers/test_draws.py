"""Workers that begin at the same moment propose different configurations."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import synthetic

from himap.search.study import prepare


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_two_workers_draw_other_numbers(sampler: str, tmp_path: Path) -> None:
    sweep = synthetic.sweep(trials=6, seeds=0, sampler=sampler)
    wide = optuna.distributions.FloatDistribution(0, 1)
    drawn = []
    for study in [prepare(sweep, tmp_path), prepare(sweep, tmp_path)]:
        trial = study.get_trials(deepcopy=False)[0]
        drawn.append([study.sampler.sample_independent(study, trial, f"x{i}", wide) for i in range(4)])
    assert drawn[0] != drawn[1]
