"""`himap report` finds what lies below its folders, once, and says what it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic

from himap.commands.report import run
from himap.errors import UserError
from himap.report.table import analysis_rows_of, find_analyses, find_results, in_common, rows_of
from tests.conftest import Command


def test_results_and_sweeps_are_found_once(sweep_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
        content = synthetic.answer(synthetic.HIMAP, "search", tmp_path / name)
        (tmp_path / name / "result.json").write_text(json.dumps(content))
    results, sweeps = find_results([tmp_path, sweep_folder.parent])
    assert [folder for folder, _ in results] == [tmp_path / "a", tmp_path / "b" / "c"]
    assert sweeps == [sweep_folder], "a sweep's trials are not listed again"
    assert {row["pruning"] for row in rows_of(results)} == {"himap"}


def test_analyses_are_listed_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("evaluation", "analysis"):
        (tmp_path / name).mkdir()
        content = synthetic.answer(synthetic.HIMAP, "search", tmp_path / name)
        (tmp_path / name / "result.json").write_text(json.dumps(content))
    (tmp_path / "analysis" / "analysis.json").write_text(json.dumps({"settings": {"name": "saliency"}}))
    results, _ = find_results([tmp_path])
    assert [folder.name for folder, _ in results] == ["evaluation"]
    assert [row["analysis"] for row in analysis_rows_of(find_analyses([tmp_path]))] == ["saliency"]
    run([tmp_path])
    printed = capsys.readouterr().out
    assert printed.index("1 results") < printed.index("1 analyses")
    run([tmp_path / "analysis"])
    assert "results" not in capsys.readouterr().out.replace("/", " ")


def test_what_all_results_have_in_common_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve columns do not fit on a terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("runs/first", "runs/second"):
        (tmp_path / name).mkdir(parents=True)
        content = synthetic.answer(synthetic.HIMAP, "search", tmp_path / name)
        (tmp_path / name / "result.json").write_text(json.dumps(content))
    rows = rows_of(find_results([tmp_path])[0])
    common, rest = in_common(rows)
    assert common["folder"] == str(tmp_path / "runs") and [row["folder"] for row in rest] == [
        "first",
        "second",
    ]
    assert all(
        {**common, **row, "folder": full["folder"]} == full for row, full in zip(rest, rows, strict=True)
    )
    assert rest[0].keys() == {"pruning", "task", "value", "folder"}
    run([tmp_path])
    lines = capsys.readouterr().out.splitlines()
    assert f"folder: {tmp_path / 'runs'}" in lines
    [line] = [line for line in lines if line.rstrip().endswith(" first")]
    assert line.split()[0] == "himap"


def test_a_cost_without_a_task_has_a_row() -> None:
    flops = {"paper_tflops": 0.735, "paper_share": 0.246, "prefill_tflops": 3.137, "prefill_share": 0.351}
    row = rows_of([(Path("x"), {"model": "llava", "pruning": "himap", "flops": flops, "metrics": {}})])[0]
    assert (row["TFLOPs (paper)"], row["share (prefill)"], row["value"]) == ("0.735", "35.1%", "")


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
@pytest.mark.parametrize("words", [[], ["--paper", "table1"]])
def test_a_broken_result_is_named(content: str, words: list[str], himap: Command, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(content)
    outcome = himap("report", *words, str(tmp_path))
    assert outcome.code == 1
    [line] = outcome.err
    assert line.startswith(f"{tmp_path}/result.json: cannot be read as a result")


def test_wrong_words_are_one_line(himap: Command, tmp_path: Path) -> None:
    for words, message in (
        ([], "himap report: give a folder that runs wrote into, or --compare A B"),
        (["--paper", "table1"], "himap report: give a folder that runs wrote into (himap report --help"),
        (["--nope"], "himap report: unrecognized arguments: --nope"),
        (["--paper", "table1", "nowhere"], "himap report nowhere: no such folder"),
        (["--paper", "table1", str(tmp_path), "nowhere"], "himap report nowhere: no such folder"),
    ):
        outcome = himap("report", *words)
        assert outcome.code == 1
        [line] = outcome.err
        assert line.startswith(message)


def test_failed_runs_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "error.txt").write_text("model.path=x: no such folder.\n")
    with pytest.raises(UserError, match=r"no result; 1 failed, the first with: model\.path=x: no"):
        run([tmp_path])
    (tmp_path / "good").mkdir()
    content = synthetic.answer(synthetic.HIMAP, "search", tmp_path / "good")
    (tmp_path / "good" / "result.json").write_text(json.dumps(content))
    run([tmp_path])
    assert f"failed: {tmp_path / 'bad'}: model.path=x: no such folder." in capsys.readouterr().out


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_results([tmp_path / "nothing"])
    with pytest.raises(UserError, match=r"no result\.json or study\.json below"):
        find_results([tmp_path])
