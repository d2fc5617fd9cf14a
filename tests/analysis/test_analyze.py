"""`himap analyze` on the embedded architecture with random weights."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from himap.analysis import ask

SMALL = ("model.weights=random", "task.limit=4", "tracking=none", "hardware.batch_size=2")


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def test_saliency_leaves_curves_figures_and_a_result(himap: Any, tmp_path: Path) -> None:
    done = himap("analyze", *SMALL, "hydra.run.dir=here")
    assert done.code == 0, done.err
    for name in ("fig3_groups", "fig4_pairs"):
        assert (tmp_path / "here" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "here" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    rows = table(tmp_path / "here" / "saliency.csv")
    assert len(rows) == 5 * 12
    assert all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in rows)
    result = content(tmp_path / "here" / "result.json")
    assert (result["n_samples"], result["n_failed"], result["pruning"]) == (4, 0, "none")
    assert result["metrics"]["primary"] == "shift"
    (proposal,) = content(tmp_path / "here" / "analysis.json")["suggestions"]
    assert proposal["K1"] == result["metrics"]["K1"]


def test_an_interrupted_analysis_goes_on_where_it_stopped(
    himap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("analyze", *SMALL, "experiment=fig5")
    assert himap(*words, "hydra.run.dir=whole").code == 0
    measured, asked = ask.disruption_of, []

    def interrupted(*arguments: Any) -> Any:
        asked.extend(sample.id for sample in arguments[-1])
        if len(asked) == 4:
            raise KeyboardInterrupt
        return measured(*arguments)

    monkeypatch.setattr(ask, "disruption_of", interrupted)
    stopped = himap(*words, "hydra.run.dir=part")
    assert stopped.code == 130
    done = himap(*shlex.split(stopped.err[-1].partition("himap ")[2]))
    assert done.code == 0, done.err
    assert len(asked) == 6, "two samples lay there already"
    whole, part = ((tmp_path / name / "disruption.csv").read_text() for name in ("whole", "part"))
    assert whole == part
    other = himap(*words, "hydra.run.dir=part", "analysis.mode=pre")
    assert other.code == 1
    assert "analysis.mode: " in other.err[-1]
    # What only changes the summary is no other measurement.
    assert himap(*words, "hydra.run.dir=part", "analysis.floor=0.01").code == 0
    assert len(asked) == 6


def test_kept_draws_samples_and_counts_places(himap: Any, tmp_path: Path) -> None:
    done = himap("analyze", *SMALL, "analysis=kept", "analysis.show=1", "hydra.run.dir=here")
    assert done.code == 0, done.err
    assert (tmp_path / "here" / "kept_0.png").stat().st_size > 10_000
    assert (tmp_path / "here" / "survival.pdf").exists()
    position = table(tmp_path / "here" / "position.csv")
    assert [row["strategy"] for row in position] == [
        *("himap", "himap", "img2txt", "img2img", "all2img", "last2img", "random", "uniform")
    ]
    shares = [float(row["kept_share"]) for row in position]
    assert shares == pytest.approx([0.5, 0.125] + [0.5] * 6)
    # Every fixed choice keeps the same cells of every image.
    rates = {row["rate"] for row in table(tmp_path / "here" / "survival.csv") if row["strategy"] == "uniform"}
    assert rates == {"0", "1"}
    (shown,) = content(tmp_path / "here" / "shown.json")["samples"]
    assert [len(stage["kept"]) for stage in shown["stages"]] == [72, 18]
    assert (tmp_path / "here" / shown["images"][0]).exists()


def test_a_sample_that_was_not_measured_cannot_be_shown(himap: Any) -> None:
    done = himap("analyze", *SMALL, "analysis=kept", "analysis.ids=[x]", "hydra.run.dir=here")
    assert done.code == 1
    assert done.err[-1].startswith("analysis.ids=x: was not measured")
