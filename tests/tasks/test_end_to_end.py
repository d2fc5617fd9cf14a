"""Every benchmark from every source through evaluate, score and report, on a tiny random LLaVA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from himap.commands.score import ScoreConfig
from himap.commands.score import score as rescore
from himap.config import TaskConfig
from himap.errors import UserError
from himap.evaluate import evaluate
from himap.report.table import find_results, rows_of
from himap.strategy import Stage, Strategy
from himap.tasks import load
from tests.conftest import Command
from tests.fakes import TinyModel
from tests.judge.endpoint import Reply, endpoint
from tests.tasks.releases import RELEASES, write_parquet
from tests.tasks.test_sources import SOURCES, config_of

PRUNED = Strategy("pruned", (Stage(1, 0.5, "img2txt", name="shallow"), Stage(3, 0.5, "img2img", name="deep")))
QUICK = ["generation.max_new_tokens=2"]


def config(name: str, folder: Path, source: str, url: str) -> TaskConfig:
    more = [*QUICK, "options.tokenizer=python"] if name in ("nocaps", "flickr30k") else QUICK
    judge = [f"judge.base_url={url}", "judge.cache=null"] if name in ("mm_vet", "llava_bench") else []
    return config_of(name, folder, source, *more, *judge)


# By default each task comes from one source and each source serves some tasks; the rest is slow.
PAIRS = [
    pytest.param(name, source, marks=[] if (i + j) % len(SOURCES) == 0 else [pytest.mark.slow])
    for i, name in enumerate(RELEASES)
    for j, source in enumerate(SOURCES)
]


@pytest.mark.parametrize(("name", "source"), PAIRS)
def test_evaluate_score_report(name: str, source: str, tmp_path: Path) -> None:
    release = RELEASES[name]
    reply = "8 4" if name == "llava_bench" else "0.5"
    with endpoint(lambda *_: Reply(reply)) as server:
        given = config(name, tmp_path / "data", source, server.url)
        run = tmp_path / "run"
        run.mkdir()
        result = evaluate(
            TinyModel(), PRUNED, load(given), batch_size=4, answers_path=run / "answers.jsonl", identity={}
        )
        result.save(run / "result.json")
        again = tmp_path / "again"
        scored = rescore(ScoreConfig(given, str(run / "answers.jsonl")), run / "answers.jsonl", again)
    assert (result.n_samples, result.n_failed) == (len(release.records), 0)
    assert result.metrics == scored.metrics
    assert result.ci95 == scored.ci95
    assert (scored.model, scored.pruning, scored.flops) == ("tiny", "pruned", result.flops)
    scored.save(again / "result.json")
    results, _ = find_results([tmp_path])
    rows = rows_of(results)
    assert [row["task"] for row in rows] == [name, name]
    assert rows[0]["value"] == rows[1]["value"] != ""
    lines = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    assert {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"} <= lines[0].keys()


def test_a_bad_sample_is_skipped_and_counted_or_ends_the_run(tmp_path: Path) -> None:
    given = config("pope", tmp_path / "data", "original", "")
    next((tmp_path / "data" / "val2014").glob("*1.png")).unlink()
    result = evaluate(TinyModel(), PRUNED, load(given), batch_size=4)
    assert (result.n_samples, result.failed) == (4, ["popular-1", "popular-2"])
    assert result.metrics["macro_accuracy"] is not None
    with pytest.raises(UserError, match=r"sample popular-\d failed: task\.data\.path=\S+: sample popular"):
        evaluate(TinyModel(), PRUNED, load(given), batch_size=4, fail_on_bad_sample=True)


def test_from_the_command_line(himap: Command, tmp_path: Path) -> None:
    """The embedded architecture with random weights writes the server's file of VQAv2."""
    RELEASES["vqav2"].original(tmp_path / "data")
    words = ["model=shapes", "model.weights=random", "pruning=himap", "pruning.stages.deep.layer=8"]
    task = [
        "task=vqav2",
        "task.split=testdev",
        "task.data.source=original",
        f"task.data.path={tmp_path / 'data'}",
    ]
    more = ["task.generation.max_new_tokens=2", "tracking=none", "hydra.run.dir=out"]
    outcome = himap("evaluate", *words, *task, *more)
    assert outcome.code == 0, outcome.err
    submitted = json.loads(Path("out/vqav2_testdev.json").read_text())
    assert [row["question_id"] for row in submitted] == [10, 20, 30]
    assert submitted[2]["answer"] == ""


def test_an_experiment_takes_data_from_a_folder(himap: Command, tmp_path: Path) -> None:
    """Its own grid of tasks is known to the check, and to Hydra, whose default task has no data."""
    for name in ("pope", "scienceqa"):
        write_parquet(RELEASES[name], tmp_path / "data" / name)
    words = [
        "-m",
        "experiment=table4",
        "model=shapes",
        "model.weights=random",
        "pruning=none",
        "tracking=none",
    ]
    words += ["task.generation.max_new_tokens=1", "task.data.source=parquet"]
    data = "task.data.path=" + str(tmp_path / "data") + "/${task.name}"
    outcome = himap("evaluate", *words, data)
    assert outcome.code == 1  # there is no A-OKVQA
    cells = {path.parent.name for path in Path("outputs/table4/shapes/none").glob("*/result.json")}
    assert cells == {"pope", "scienceqa"}
    [missing] = Path("outputs/table4").rglob("error.txt")
    assert missing.parent.name == "aokvqa"
    assert missing.read_text().startswith(f"task.data.path={tmp_path / 'data' / 'aokvqa'}: no such file")
    write_parquet(RELEASES["aokvqa"], tmp_path / "data" / "aokvqa")
    assert himap("evaluate", *words, data).code == 0
    assert not list(Path("outputs/table4").rglob("error.txt"))
    outcome = himap("evaluate", *words, "task.data.pth=x")
    assert outcome.err[-1].startswith("task.data.pth=x: unknown key (known here: source, path")


def test_a_key_of_the_judge_can_be_set_at_the_command_line(himap: Command, tmp_path: Path) -> None:
    write_parquet(RELEASES["mm_vet"], tmp_path / "data")
    rows = [{"question_id": f"v1_{n}", "prompt": "", "text": "3", "model_id": "m"} for n in range(4)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with endpoint(lambda *_: Reply("1")) as server:
        judge = [f"task.judge.base_url={server.url}", "task.judge.concurrency=2", "task.judge.model=m"]
        data = ["task.data.source=parquet", f"task.data.path={tmp_path / 'data'}"]
        outcome = himap("score", "task=mm_vet", *data, *judge, "answers=a.jsonl", "hydra.run.dir=out")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("out/result.json").read_text())["metrics"]["total"] == 100
    assert any(Path("outputs/judge").rglob("*.json"))
    outcome = himap("score", "task=mm_vet", *data, "task.judge.runs=0", "answers=a.jsonl")
    assert outcome.err == ["task.judge.runs=0: must be at least 1."]
