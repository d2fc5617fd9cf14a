"""The paper's tables beside our results; cells without a result say why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from himap.errors import ConfigError
from himap.paths import conf_dir
from himap.report.paper import TABLES, cells
from himap.report.table import find_results
from himap.result import Result
from tests.conftest import Command


def save(
    folder: Path,
    task: str,
    model: str,
    pruning: str,
    value: float,
    primary: str = "accuracy",
    split: str = "test",
    notes: Sequence[str] = (),
) -> None:
    Result(
        model, pruning, {}, [], "", {}, task=task, split=split, n_samples=9,
        metrics={primary: value, "primary": primary}, ci95=[value - 1, value + 1], notes=list(notes),
    ).save(folder / "result.json")  # fmt: skip


def test_values_stand_side_by_side(tmp_path: Path) -> None:
    save(tmp_path / "a", "pope", "llava_1_5_7b", "himap", 85.7)
    save(tmp_path / "b", "pope", "llava_1_5_13b", "himap_13b", 86.0)
    save(tmp_path / "c", "vqav2", "llava_1_5_7b", "none", 100.0, "answered")
    results, _ = find_results([tmp_path])
    found = {(c.task, c.model, c.pruning): c for c in cells("table1", results, [tmp_path])}
    assert len(found) == 6 * 4 * 3
    cell = found["pope", "llava_1_5_7b", "himap"]
    assert (cell.paper, cell.ours, cell.interval, cell.n_samples) == (86.2, 85.7, (84.7, 86.7), 9)
    assert found["pope", "llava_1_5_13b", "himap"].ours == 86.0
    server = found["vqav2", "llava_1_5_7b", "none"]
    assert (server.paper, server.ours, server.missing) == (78.3, None, "on the test server")
    assert found["mme", "qwen_vl_chat", "fastv"].missing == "not run"


def test_another_quantity_is_not_set_beside_the_papers(
    himap: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    save(tmp_path / "a", "mme", "llava_1_5_7b", "none", 81.2)
    save(tmp_path / "b", "pope", "llava_1_5_7b", "none", 80.0, split="popular")
    save(tmp_path / "c", "pope", "llava_1_5_7b", "fastv", 80.0)
    limited = "CIDEr under task.limit=9 is not comparable: its weights come from the images"
    save(tmp_path / "d", "nocaps", "llava_1_5_7b", "none", 70.0, "cider", "validation", [limited])
    results, _ = find_results([tmp_path])
    found = {
        (c.task, c.pruning): c
        for table in ("table1", "table2")
        for c in cells(table, results, [tmp_path])
        if c.model == "llava_1_5_7b"
    }
    assert (found["mme", "none"].ours, found["mme", "none"].missing) == (
        None,
        "no total without all categories",
    )
    assert not found["pope", "none"].is_comparable
    assert found["pope", "fastv"].is_comparable
    assert not found["nocaps", "none"].is_comparable
    printed = himap("report", "--paper", "table2", str(tmp_path)).out
    assert "70.0*" in printed
    assert "* of another split or of a part" in printed
    printed = himap("report", str(tmp_path)).out
    assert "70.00*" in printed
    assert "* not comparable with the whole benchmark" in printed


def test_the_ablation_keeps_two_rows_of_the_paper() -> None:
    papers = {(c.task, c.pruning): c.paper for c in cells("table4", [], [])}
    assert (papers["pope", "none"], papers["pope", "img2txt_img2img"], papers["pope", "img2txt"]) == (
        86.4,
        86.2,
        None,
    )


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--paper=tabel1: unknown; did you mean table1\?"):
        cells("tabel1", [], [])


@pytest.mark.parametrize("table", TABLES)
def test_the_experiments_fill_their_table(table: str) -> None:
    """Every cell of a table is run by the experiments of that name."""
    runs = set()
    for path in (conf_dir() / "experiment").glob(f"{table}*.yaml"):
        grid = OmegaConf.load(path).hydra.sweeper.params
        for model in grid.model.split(","):
            for pruning in grid.pruning.split(","):
                for task in grid.task.split(","):
                    for group, name in (("model", model), ("pruning", pruning), ("task", task)):
                        assert (conf_dir() / group / f"{name}.yaml").exists(), name
                    runs.add((task, model, pruning.removesuffix("_13b")))
    assert {(c.task, c.model, c.pruning) for c in cells(table, [], [])} == runs


def test_a_grid_runs_on_after_a_cell_without_weights(
    himap: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = ["-m", "experiment=table3", "model.path=nowhere", "tracking=none", "task.data.source=parquet"]
    outcome = himap("evaluate", *words, "task.data.path=nowhere", "model=llava_1_5_7b", "task=mm_vet")
    assert outcome.code == 1
    assert len(list(Path("outputs/table3").rglob("error.txt"))) == 3
    outcome = himap("report", "--paper", "table3", "outputs/table3")
    assert outcome.code == 0
    assert outcome.out.count("failed (1)") == 3
    assert "(1) model.path=nowhere: no such folder" in outcome.out
    assert "not run" in outcome.out


def test_a_finished_cell_is_not_run_again(
    himap: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start of a multirun loads no model for what is there."""
    words = [
        "-m",
        "model=shapes",
        "model.weights=random",
        "pruning=none",
        "task=shapes_yesno",
        "task.limit=2",
    ]
    words += ["tracking=none", "hydra.sweep.dir=grid"]
    assert himap("evaluate", *words).code == 0
    monkeypatch.setattr("himap.models.load", lambda *_: pytest.fail("loaded a model"))
    assert himap("evaluate", *words).code == 0
    with pytest.raises(pytest.fail.Exception, match="loaded a model"):
        himap("evaluate", *words, "task.split=heldout", "hydra.sweep.dir=other")
