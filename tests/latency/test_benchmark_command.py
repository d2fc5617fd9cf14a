"""`himap benchmark`: what it compares, writes, goes on with and refuses."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from himap import models
from himap.commands.benchmark import expand
from himap.config.compose import compose
from himap.errors import UserError
from himap.latency import run as latency_run
from himap.latency.config import BenchmarkConfig
from himap.latency.shape import Shape
from himap.report import latency as report
from himap.report.latency import MEASURES, draw_latency, table

MODEL = """
name: tiny
adapter: tiny
architecture: {n_layers: 6, hidden: 64, intermediate: 64, n_heads: 4, n_kv_heads: 4, head_dim: 16, vocab: 100,
  n_system: 2, n_image: 16, n_instruction: 12}
"""
QUICK = ("benchmark.rounds=6", "benchmark.warmup=1", "benchmark.n_new=[3]", "benchmark.execution=[eager]")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words after `himap benchmark` that choose the tiny model and a short benchmark."""
    monkeypatch.setitem(models.ADAPTERS, "tiny", "fakes")
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    (own / "tiny.yaml").write_text(MODEL)
    return ("--config-dir", str(own.parent), "model=tiny", "tracking=none", *QUICK, "pruning=none,img2txt")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figure out, which takes longer than everything else together."""
    monkeypatch.setattr(report, "draw_latency", lambda cells, model, path: None)


def composed(*arguments: str) -> BenchmarkConfig:
    return compose("benchmark", BenchmarkConfig, expand(arguments))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize(
    ("typed", "labels", "reference"),
    [
        ((), ["none", "fastv", "himap"], "none"),
        (("pruning=none,himap",), ["none", "himap"], "none"),
        (("pruning=[fastv,none]",), ["none", "fastv"], "fastv"),
        (("pruning=img2txt",), ["img2txt"], "img2txt"),
        (("pruning=none,uniform,himap",), ["none", "himap", "uniform"], "none"),
        (("+pruning@benchmark.pruning.mine=himap",), ["none", "fastv", "himap", "mine"], "none"),
        (("pruning=himap,none", "benchmark.reference=none"), ["none", "himap"], "none"),
    ],
)
def test_a_list_of_strategies_is_compared_in_one_run(
    typed: tuple[str, ...], labels: list[str], reference: str
) -> None:
    config = composed(*typed)
    assert list(config.benchmark.pruning) == labels
    assert config.benchmark.reference == reference


def test_a_variant_stands_beside_the_preset() -> None:
    config = composed(
        "+pruning@benchmark.pruning.gentle=himap", "benchmark.pruning.gentle.stages.deep.drop=0.5"
    )
    strategies = {name: one.strategy() for name, one in config.benchmark.pruning.items()}
    assert strategies["gentle"].stages[1].drop == 0.5
    assert strategies["himap"].stages[1].drop == 0.75


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("pruning=none,himp", "pruning=himp: unknown; did you mean himap?"),
        ("pruning=none,none", "pruning=none,none: must name strategies, each once"),
        ("pruning=", "pruning=: must name strategies, each once"),
        ("pruning.stages.deep.drop=0.9", "pruning.stages.deep.drop=0.9: several strategies are compared"),
        (
            "hardware.batch_size=16",
            "hardware.batch_size=16: is not read here (write",
        ),
        ("benchmark.reference=me", "benchmark.reference=me: unknown (choose one of none, fastv, himap)"),
        ("benchmark.rounds=5", "benchmark.rounds=5: must be at least 6"),
        ("benchmark.warmup=0", "benchmark.warmup=0: must be at least 1"),
        ("benchmark.batch_size=[0]", "benchmark.batch_size=0: must be at least 1"),
        ("benchmark.batch_size=8", "benchmark.batch_size=8: must be a list, [a,b]"),
        ("benchmark.n_new=[]", "benchmark.n_new=[]: must have a value"),
        ("benchmark.n_image=[144,144]", "benchmark.n_image=[144, 144]: must not name a value twice"),
        ("benchmark.execution=[graph]", "benchmark.execution=graph: unknown; did you mean graphs?"),
        ("benchmark.execution=[]", "benchmark.execution=[]: must name one or several"),
        ("benchmark.execution=[eager,released]", "benchmark.execution=[eager,released]: released must stand"),
        ("benchmark.energy_s=0", "benchmark.energy_s=0.0: must be at least 0.5"),
        ("benchmark=relased", "benchmark=relased: unknown; did you mean released?"),
        ("model.architecture.n_layers=8", "pruning.stages.deep.layer=8: must be below the model's 8"),
    ],
)
def test_what_is_typed_wrong_is_one_line(typed: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        composed(typed)
    assert str(caught.value).startswith(message)


def test_every_preset_composes() -> None:
    assert composed().benchmark.execution == ["eager", "graphs"]
    assert composed("benchmark=released").benchmark.execution == ["released"]
    assert composed("benchmark=fastest").benchmark.execution == ["eager", "compiled", "graphs"]
    config = composed("model=llava_1_5_7b")
    assert config.benchmark.shapes(config.model) == [Shape(1, 35, 576, 60, 16)]


def test_axes_are_crossed() -> None:
    config = composed("benchmark.batch_size=[1,16]", "benchmark.n_image=[144,288]", "benchmark.n_new=[1,8]")
    shapes = config.benchmark.shapes(config.model)
    assert len(set(shapes)) == 8
    assert len({shape.key for shape in shapes}) == 8
    assert shapes[0] == Shape(1, 8, 144, 9, 1) and shapes[-1] == Shape(16, 8, 288, 9, 8)


def test_a_run_writes_numbers_table_and_figure(himap: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    done = himap("benchmark", *tiny, "hydra.run.dir=here")
    assert done.code == 0, done.err
    folder = tmp_path / "here"
    files = {".lock", "cells", "config.yaml", "latency.csv", "latency.pdf", "latency.png", "result.json"}
    assert {path.name for path in folder.iterdir()} == files
    result = read(folder / "result.json")
    assert (result["model"], result["pruning"]) == ("tiny", "none, img2txt")
    (cell,) = result["cells"]
    assert cell["shape"] == {"batch_size": 1, "n_system": 2, "n_image": 16, "n_instruction": 12, "n_new": 3}
    pruned = cell["strategies"]["img2txt"]
    assert set(MEASURES) < set(pruned)
    assert 0 < pruned["flops"]["prefill_share"] < 1
    assert result["metrics"][result["metrics"]["primary"]] == pruned["prefill_ms"]["ratio"]["median"]
    with open(folder / "latency.csv") as file:
        rows = list(csv.DictReader(file))
    (row,) = [r for r in rows if r["strategy"] == "img2txt" and r["measure"] == "prefill_ms"]
    assert float(row["value"]) == pruned["prefill_ms"]["median"]
    assert float(row["flops_share"]) == pruned["flops"]["prefill_share"]
    for words in ("batch 1, 2 + 16 + 12 tokens, 3 new", "% of none", "FLOPs, %", "KV cache (MiB)"):
        assert words in done.out
    # Other reports walk over it.
    listed = himap("report", "here")
    assert listed.code == 0, listed.err
    assert "tiny" in listed.out


def test_a_second_start_measures_what_is_missing(
    himap: Any, tiny: tuple[str, ...], undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert himap("benchmark", *tiny, "hydra.run.dir=here").code == 0
    first = (tmp_path / "here" / "cells" / "b1_i16_n3.json").read_bytes()
    measured = []
    measure = latency_run.measure

    def watched(*args: Any) -> Any:
        measured.append(args[2].key)
        return measure(*args)

    monkeypatch.setattr(latency_run, "measure", watched)
    again = himap("benchmark", *tiny, "hydra.run.dir=here", "benchmark.batch_size=[1,2]")
    assert again.code == 0, again.err
    assert measured == ["b2_i16_n3"], "a longer axis keeps the cells that are there"
    assert (tmp_path / "here" / "cells" / "b1_i16_n3.json").read_bytes() == first
    assert len(read(tmp_path / "here" / "result.json")["cells"]) == 2
    monkeypatch.setitem(models.ADAPTERS, "tiny", "no_such_module")
    assert himap("benchmark", *tiny, "hydra.run.dir=here").code == 0, "nothing missing, nothing loaded"


def test_other_settings_are_refused_and_named(
    himap: Any, tiny: tuple[str, ...], undrawn: None, tmp_path: Path
) -> None:
    assert himap("benchmark", *tiny, "hydra.run.dir=here").code == 0
    before = (tmp_path / "here" / "result.json").read_bytes()
    done = himap("benchmark", *tiny, "hydra.run.dir=here", "benchmark.rounds=7")
    assert done.code == 1
    assert "benchmark.rounds: 6 -> 7" in done.err[-1]
    assert (tmp_path / "here" / "result.json").read_bytes() == before
    (tmp_path / "here" / "cells" / "b1_i16_n3.json").write_text("{")
    done = himap("benchmark", *tiny, "hydra.run.dir=here")
    assert done.code == 1
    assert "cannot be read as a cell" in done.err[-1]


def test_ctrl_c_keeps_the_cells_and_says_how_to_go_on(
    himap: Any, tiny: tuple[str, ...], undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = latency_run.measure

    def interrupted(*args: Any) -> Any:
        if args[2].batch_size == 2:
            raise KeyboardInterrupt
        return measure(*args)

    with monkeypatch.context() as patch:
        patch.setattr(latency_run, "measure", interrupted)
        stopped = himap("benchmark", *tiny, "hydra.run.dir=here", "benchmark.batch_size=[1,2]")
    assert stopped.code == 130
    assert [path.name for path in (tmp_path / "here" / "cells").iterdir()] == ["b1_i16_n3.json"]
    _, _, command = stopped.err[-1].partition("this goes on from here: himap ")
    done = himap(*shlex.split(command))
    assert done.code == 0, done.err
    assert len(read(tmp_path / "here" / "result.json")["cells"]) == 2


def test_the_figure_and_the_table_take_several_cells(tmp_path: Path) -> None:
    median = {"median": 2.0, "low": 1.0, "high": 3.0}
    measure = {**median, "execution": "eager", "ratio": median, "executions": {"eager": median}}
    row = {
        "prefill_ms": measure,
        "first_token_ms": measure,
        "end_to_end_ms": measure,
        "scoring": None,
        "flops": {"prefill_share": 0.5, "answer_share": 0.5, "later_share": 0.5},
        **{"peak_mib": None, "kv_cache_mib": 1.0, "energy_j": 2.5},
    }
    shape = {"batch_size": 1, "n_system": 2, "n_image": 16, "n_instruction": 12, "n_new": 1}
    cell = {
        "shape": shape,
        "reference": "none",
        "tower_ms": median,
        "strategies": {"none": row, "himap": row},
        "environment": {"device": "cpu"},
    }
    draw_latency([cell, cell], "tiny", tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    header, *rows = table([cell, cell])
    assert all(len(line) == len(header) for line in rows)
    measures = [line[header.index("measure")] for line in rows if line[header.index("strategy")] == "himap"]
    assert measures == 2 * ["prefill_ms", "first_token_ms", "end_to_end_ms", "kv_cache_mib", "energy_j"]
