from __future__ import annotations

from pathlib import Path

from himap.analysis.outcome import Outcome, Table
from himap.analysis.suggest import Suggestion
from himap.commands.sweep import SweepConfig, plan
from himap.config.compose import compose
from himap.search.study import first_configurations


def outcome(*suggestions: Suggestion) -> Outcome:
    table = Table(("layer", "mean"), [(1, 0.123456789), (2, None)])
    return Outcome(metrics={}, tables={"curve": table}, notes=[], n_used=3, suggestions=list(suggestions))


def test_a_sweep_begins_at_the_suggested_layers(tmp_path: Path) -> None:
    both = Suggestion("saliency", 3, 6, "why: because")
    first = Suggestion("disruption", 4, None, "only one")
    outcome(both, first, Suggestion("neither", None, None, "none")).save(tmp_path, {"model": "tiny"})
    config = compose("sweep", SweepConfig, ["sweeps=suggested"], config_dir=tmp_path)
    starts = first_configurations(plan(config))[:2]
    # What is not suggested is HiMAP's.
    assert starts == [
        {"K1": 3, "R1": 0.5, "K2": 6, "R2": 0.75},
        {"K1": 4, "R1": 0.5, "K2": 8, "R2": 0.75},
    ]


def test_without_a_suggestion_there_is_no_sweep(tmp_path: Path) -> None:
    outcome(Suggestion("saliency", None, None, "none")).save(tmp_path, {})
    assert not (tmp_path / "sweeps").exists()
    assert (tmp_path / "curve.csv").read_text() == "layer,mean\n1,0.123457\n2,\n"
