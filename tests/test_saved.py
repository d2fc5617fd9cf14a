"""Saved answers of three forms are scored without a model; what fits no sample is refused."""

# ruff: noqa: E501

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from himap import saved
from himap.errors import UserError
from himap.result import Result
from tests.conftest import Command
from tests.tasks.releases import RELEASES, write_parquet
from tests.tasks.test_sources import task_of

# POPE's truth is yes, no in each of three splits: one wrong, in `random`.
POPE = ["Yes", "No", "Yes, it is.", "No", "Yes", "Yes"]


def score(himap: Command, folder: Path, rows: list[dict[str, Any]], name: str = "pope", *more: str) -> Any:
    """`himap score` on rows; returns what it left."""
    (folder / "saved.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if not (folder / "data").exists():
        write_parquet(RELEASES[name], folder / "data")
    source = [f"task={name}", "task.data.source=parquet", f"task.data.path={folder / 'data'}"]
    return himap("score", *source, f"answers={folder / 'saved.jsonl'}", "hydra.run.dir=out", *more)


def llava(name: str, folder: Path, texts: list[str], source: str = "parquet") -> list[dict[str, Any]]:
    """What LLaVA's scripts write: the benchmark's question id and the prompt."""
    task = task_of(name, folder / source, source)
    return [
        {"question_id": s.own_id, "prompt": task.text(s, "llava"), "text": text, "answer_id": "x", "model_id": "m7b",
         "metadata": {}}
        for s, text in zip(task.samples(), texts, strict=True)
    ]  # fmt: skip


def lmms(name: str, texts: list[str]) -> list[dict[str, Any]]:
    """What lmms-eval logs with --log_samples."""
    return [
        {"doc_id": number, "doc": {"question": record["question"]}, "target": record["answer"], "resps": [[text]],
         "filtered_resps": [text]}
        for number, (record, text) in enumerate(zip(RELEASES[name].records, texts, strict=True))
    ]  # fmt: skip


def logged(name: str, folder: Path, texts: list[str]) -> list[dict[str, Any]]:
    """What lmms-eval 0.7 leaves on disk: no document, the one answer bare, and the prompt that was sent."""
    task = task_of(name, folder / "parquet", "parquet")
    return [
        {"doc_id": number, "target": "answer", "filtered_resps": text, "doc_hash": "7423",
         "input": task.text(sample, "llava").replace("\n", "  ").upper()}
        for number, (sample, text) in enumerate(zip(task.samples(), texts, strict=True))
    ]  # fmt: skip


def ours(folder: Path, texts: list[str]) -> list[dict[str, Any]]:
    task = task_of("pope", folder / "parquet", "parquet")
    return [
        {"id": s.id, "prediction": "stale", "text": text, "error": None, "model_id": "mine"}
        for s, text in zip(task.samples(), texts, strict=True)
    ]


def test_three_forms_give_one_score(himap: Command, tmp_path: Path) -> None:
    forms = {
        "himap": [ours(tmp_path, POPE)],
        "lmms_eval": [lmms("pope", POPE), logged("pope", tmp_path, POPE)],
    }
    for name, rows in [(name, rows) for name, files in forms.items() for rows in files]:
        outcome = score(himap, tmp_path, rows)
        assert outcome.code == 0, outcome.err
        result = Result.load(Path("out/result.json"))
        assert result.metrics["macro_accuracy"] == pytest.approx(100 * 5 / 6)
        assert (result.n_samples, result.n_failed) == (6, 0)
        assert result.notes[-1] == f"scored from saved answers ({name})"
        lines = [json.loads(line) for line in Path("out/answers.jsonl").read_text().splitlines()]
        assert [line["score"] for line in lines] == [1, 1, 1, 1, 1, 0]
    # LLaVA's ids of POPE go through its own question file.
    (tmp_path / "saved.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in llava("pope", tmp_path, POPE, "original"))
    )
    source = ["task=pope", "task.data.source=original", f"task.data.path={tmp_path / 'original'}"]
    assert himap("score", *source, f"answers={tmp_path / 'saved.jsonl'}", "hydra.run.dir=out").code == 0
    result = Result.load(Path("out/result.json"))
    assert (result.model, result.metrics["micro_accuracy"]) == ("m7b", pytest.approx(100 * 5 / 6))


@pytest.mark.parametrize("name", ["mme", "textvqa", "scienceqa", "nocaps", "vqav2"])
def test_a_log_without_documents_is_told_by_its_prompts(name: str, tmp_path: Path) -> None:
    task = task_of(name, tmp_path / "parquet", "parquet")
    path = tmp_path / "log.jsonl"
    rows = logged(name, tmp_path, [f"answer {i}" for i in range(len(task.samples()))])
    found = saved.answers(rows, "lmms_eval", task, path)
    assert [one.text for one in found.values()] == [row["filtered_resps"] for row in rows]
    if name != "nocaps":  # every image is asked the same
        rows[1]["input"] = rows[2]["input"]
        with pytest.raises(UserError, match=r"line 2 answers .*, but document 1 of task="):
            saved.answers(rows, "lmms_eval", task, path)


@pytest.mark.parametrize("name", ["mme", "textvqa"])
def test_repeated_question_ids_are_told_apart_by_the_prompt(
    name: str, himap: Command, tmp_path: Path
) -> None:
    texts = [r["answer"] if name == "mme" else "stop" for r in RELEASES[name].records]
    rows = llava(name, tmp_path, texts)
    assert len({row["question_id"] for row in rows}) < len(rows)
    outcome = score(himap, tmp_path, rows[::-1], name)
    assert outcome.code == 0, outcome.err
    metrics = Result.load(Path("out/result.json")).metrics
    assert metrics[str(metrics["primary"])] == (2800 if name == "mme" else 100)


def test_a_missing_answer_is_counted_or_refused(himap: Command, tmp_path: Path) -> None:
    rows = ours(tmp_path, POPE)
    rows[5]["text"], rows[5]["error"] = None, "OSError: gone"
    outcome = score(himap, tmp_path, rows[1:])
    assert outcome.code == 0, outcome.err
    result = Result.load(Path("out/result.json"))
    assert (result.n_samples, result.failed) == (4, ["adversarial-1", "random-2"])
    assert "2 samples have no answer, or no sound record, and are in no metric" in result.notes
    outcome = score(himap, tmp_path, rows[1:], "pope", "task.on_bad_sample=fail")
    assert outcome.code == 1
    assert "no answer to sample adversarial-1, one of 2" in outcome.err[-1]


def test_an_answer_to_a_broken_record_is_left_out(himap: Command, tmp_path: Path) -> None:
    """lmms-eval's logs have one for every document."""
    records = [dict(record) for record in RELEASES["scienceqa"].records]
    records[1]["answer"] = 7
    write_parquet(replace(RELEASES["scienceqa"], records=records), tmp_path / "data")
    rows = [{"doc_id": number, "resps": [["A"]]} for number in range(4)]
    outcome = score(himap, tmp_path, rows, "scienceqa")
    assert outcome.code == 0, outcome.err
    result = Result.load(Path("out/result.json"))
    assert (result.n_samples, result.failed, result.primary) == (3, ["row-1"], pytest.approx(200 / 3))
    outcome = score(himap, tmp_path, rows, "scienceqa", "task.on_bad_sample=fail")
    assert outcome.code == 1
    assert "sample row-1: its columns are not as expected (IndexError" in outcome.err[-1]


def test_the_cost_of_our_own_run_stays(himap: Command, tmp_path: Path) -> None:
    made = Result("llava", "himap", {"paper_tflops": 1.0, "paper_share": 0.3, "prefill_tflops": 2.0,
                  "prefill_share": 0.4}, [[2, 288]], "x", {})  # fmt: skip
    made.save(tmp_path / "result.json")
    assert score(himap, tmp_path, ours(tmp_path, POPE)).code == 0
    result = Result.load(Path("out/result.json"))
    assert (result.model, result.pruning, result.flops, result.kept) == (
        "llava",
        "himap",
        made.flops,
        made.kept,
    )
    assert result.config_sha256 != "x"


def test_scores_alone_can_be_reported(
    himap: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert score(himap, tmp_path, lmms("pope", POPE)).code == 0
    outcome = himap("report", "out")
    assert outcome.code == 0, outcome.err
    assert "83.33" in outcome.out


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no answers"),
        ([{"a": 1}], "has the keys a; known are himap's"),
        ([{"question_id": "77", "text": "Yes"}], "line 1 answers '77', which is no sample of task=pope"),
        ([{"question_id": "1", "prompt": "", "text": "Yes"}], "line 1 answers '1', which fits several samples of task=pope"),
        ([{"question_id": "1", "prompt": "Why?", "text": "Yes"}], "line 1 answers 'Why?', but '1' of task=pope"),
        ([{"id": "popular-9", "text": "Yes", "prediction": "yes"}], "line 1 answers 'popular-9', which is no sample"),
        ([{"id": "popular-1", "text": "Yes", "prediction": "yes"}] * 2, "line 2 is a second answer to sample popular"),
        ([{"doc_id": 6, "resps": [["Yes"]]}], "line 1 answers document 6, which is none of the 6 samples"),
        ([{"doc_id": 0, "doc": {"question": "Why?"}, "resps": [["a"]]}], "line 1 answers 'Why?', but document 0"),
        ([{"doc_id": "0", "resps": [["Yes"]]}], "line 1 answers document 0, which is none of the 6 samples"),
        ([{"doc_id": 0, "resps": [["Yes"]]}, {"doc_id": 1}], "line 2 has no filtered_resps, which format=lmms_eval needs"),
        ([{"id": "popular-1", "text": "Yes", "prediction": "yes"}, {"id": "popular-2"}], "line 2 has no text"),
        ([{"question_id": "77", "text": "Yes"}, [1]], "line 2 is no JSON object"),
    ],
)  # fmt: skip
def test_what_fits_no_sample_is_refused(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = task_of("pope", tmp_path / "data", "parquet")
    with pytest.raises(UserError) as error:
        saved.answers(*saved.read(path), task, path)
    assert str(error.value).startswith(f"answers={path}: ")
    assert message in str(error.value)


def test_llavas_numbers_of_mm_vet_are_the_releases_ids(tmp_path: Path) -> None:
    task = task_of("mm_vet", tmp_path / "data", "parquet")
    for ids in ([0, 1, 2, 3], ["v1_0", "v1_1", "v1_2", "v1_3"]):
        rows = [{"question_id": id, "prompt": f"What is {n}?", "text": str(n)} for n, id in enumerate(ids)]
        found = saved.answers(rows, "llava", task, tmp_path / "a.jsonl")
        assert {name: one.text for name, one in found.items()} == {f"v1_{n}": str(n) for n in range(4)}
    written = task.files(task.samples(), list("wxyz"))
    assert json.loads(written["mm_vet_answers.json"]) == {"v1_0": "w", "v1_1": "x", "v1_2": "y", "v1_3": "z"}


def test_a_question_asked_twice_is_answered_in_order_and_other_wordings_are_found(tmp_path: Path) -> None:
    records = [dict(record) for record in RELEASES["textvqa"].records]
    records[1]["question"] = records[0]["question"]  # both of image im0
    records[1]["ocr_tokens"] = records[0]["ocr_tokens"]
    write_parquet(replace(RELEASES["textvqa"], records=records), tmp_path / "parquet")
    task = task_of("textvqa", tmp_path / "parquet", "parquet", "options.ocr=false")
    prompt = "What does sign 0 say?\nReference OCR token: x\nAnswer"
    rows = [{"question_id": "im0", "prompt": task.text(task.samples()[0], "llava"), "text": t} for t in "ab"]
    rows += [{"question_id": "im1", "prompt": prompt.replace("0", "3"), "text": "c"}]
    found = saved.answers(rows, "llava", task, tmp_path / "a.jsonl")
    assert {name: one.text for name, one in found.items()} == {"30": "a", "31": "b", "33": "c"}
    with pytest.raises(UserError, match="line 4 is a second answer to sample 30"):
        saved.answers([*rows, rows[0]], "llava", task, tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="line 1 answers 'im0', which fits several"):
        saved.answers([{**rows[0], "prompt": prompt}], "llava", task, tmp_path / "a.jsonl")


def test_an_answer_beyond_the_limit_is_refused_with_the_limit(tmp_path: Path) -> None:
    task = task_of("pope", tmp_path / "parquet", "parquet", "limit=2")
    with pytest.raises(UserError, match=r"'popular-1', which is no sample of \S+ \S+ task\.limit=2"):
        saved.answers(ours(tmp_path, POPE), "himap", task, tmp_path / "a.jsonl")


def test_a_form_that_the_file_has_not_is_refused(himap: Command, tmp_path: Path) -> None:
    outcome = score(himap, tmp_path, ours(tmp_path, POPE), "pope", "format=lmms_eval")
    assert outcome.code == 1
    assert "line 1 has no doc_id, which format=lmms_eval needs" in outcome.err[-1]


def test_an_empty_response_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        "\ufeff"
        + json.dumps({"doc_id": 0, "resps": [[]]})
        + "\n"
        + json.dumps({"doc_id": 1, "resps": [["No"]]})
    )
    rows, form = saved.read(path)
    found = saved.answers(rows, form, task_of("pope", tmp_path / "data", "parquet"), path)
    assert {name: one.text for name, one in found.items()} == {"adversarial-2": "No"}


def test_the_prompt_is_kept(himap: Command, tmp_path: Path) -> None:
    """LLaVA's scripts for MME and TextVQA look a question up by its prompt."""
    rows = llava("textvqa", tmp_path, ["stop"] * 4)
    assert score(himap, tmp_path, rows, "textvqa").code == 0
    lines = [json.loads(line) for line in Path("out/answers.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [row["prompt"] for row in rows]


def test_an_evaluation_is_not_overwritten(himap: Command, tmp_path: Path) -> None:
    words = ["model=shapes", "model.weights=random", "pruning=none", "task=shapes_yesno", "task.limit=2"]
    assert himap("evaluate", *words, "tracking=none", "hydra.run.dir=run").code == 0
    before = Path("run/answers.jsonl").read_text()
    scoring = ["task=shapes_yesno", "task.limit=2", "answers=run/answers.jsonl"]
    outcome = himap("score", *scoring, "hydra.run.dir=run")
    assert outcome.code == 1
    assert "run: holds an evaluation" in outcome.err[-1]
    assert Path("run/answers.jsonl").read_text() == before
    assert himap("score", *scoring, "hydra.run.dir=again").code == 0


def test_wrong_files_are_refused(himap: Command, tmp_path: Path) -> None:
    write_parquet(RELEASES["pope"], tmp_path / "data")
    source = [
        "task=pope",
        "task.data.source=parquet",
        f"task.data.path={tmp_path / 'data'}",
        "hydra.run.dir=out",
    ]
    (tmp_path / "bad.jsonl").write_text("{\n")
    for words, message in (
        (["answers=missing.jsonl"], "answers=missing.jsonl: cannot be read"),
        ([f"answers={tmp_path / 'bad.jsonl'}"], "line 1 is no JSON object"),
        ([], "answers=???: must be given"),
        (["answers=x", "format=xml"], "format=xml: unknown"),
    ):
        outcome = himap("score", *source, *words)
        assert outcome.code == 1
        assert message in outcome.err[-1]
