"""The judged benchmarks against a judge on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from himap.errors import UserError
from himap.tasks.llava_bench import parse_ratings
from himap.tasks.mm_vet import parse_grade
from tests.conftest import Command
from tests.judge.endpoint import MODEL, Endpoint, Reply, endpoint
from tests.tasks.releases import RELEASES, write_parquet
from tests.tasks.test_sources import task_of


def score(name: str, folder: Path, server: Endpoint, answers: list[str], *overrides: str) -> Any:
    quick = ["retries=1", "backoff_s=0.01", "attempts=2", "cache=null", "model=asked"]
    judge = [f"judge.{setting}" for setting in (f"base_url={server.url}", *quick)]
    task = task_of(name, folder / "data", "parquet", *judge, *overrides)
    return task.score(task.samples(), answers)


# Capabilities: rec; ocr,spat; rec,know; math,ocr.
GRADES = {"three": "1.0", "ab": "0.5", "c": "0", "none": "I cannot tell"}


def vet(request: dict[str, Any], _: int) -> Reply:
    row = request["messages"][-1]["content"].split("\nPredict the")[0].rsplit("\n", 1)[-1]
    return Reply(GRADES[row.split(" | ")[2]])


def test_mm_vet_averages_the_grades(tmp_path: Path) -> None:
    with endpoint(vet) as server:
        found = score("mm_vet", tmp_path, server, ["three", "ab", "c", "none"])
    assert found.per_sample == (1.0, 0.5, 0.0, None)
    metrics = {name: round(value, 6) for name, value in found.metrics.items()}
    assert metrics == {
        "total": 50, "rec": 50, "ocr": 50, "spat": 50, "know": 0,
        "set_rec": 100, "set_ocr+spat": 50, "set_know+rec": 0, "unjudged": 1,
    }  # fmt: skip
    assert found.notes[0].startswith(f"judge: {MODEL} (3), himap's own wording of the prompt, sha256 ")
    assert found.notes[-1] == "unjudged: 1 of 4 (no grade in the reply 'I cannot tell')"


def test_mm_vet_asks_as_released(tmp_path: Path) -> None:
    notebook = {"cells": [
        {"cell_type": "markdown", "source": ["prompt = 1"]},
        {"cell_type": "code", "source": ["!pip install openai\n"]},
        {"cell_type": "code", "source": ["x = 1\n", 'prompt = """Compare.\n', 'Q | T | P | C\n', '"""\n']},
    ]}  # fmt: skip
    path = tmp_path / "mm-vet_evaluator.ipynb"
    path.write_text(json.dumps(notebook))
    overrides = [f"judge.prompt={path}", "judge.attempts=5"]
    with endpoint(vet) as server:
        found = score("mm_vet", tmp_path, server, ["three", "ab", "c", "none"], *overrides)
    asked = {request["messages"][-1]["content"]: request for request in server.requests}
    row = "Compare.\nQ | T | P | C\n\nWhat is 1? | a <AND> b | ab | "
    assert asked[row] == {
        "model": "asked", "temperature": 0.0, "max_tokens": 3, "messages": [{"role": "user", "content": row}]
    }  # fmt: skip
    again = (
        "Compare.\nQ | T | P | C\n\nWhat is 3? | e | none | \nPredict the correctness of the answer (digit): "
    )
    temperatures = [r["temperature"] for r in server.requests if r["messages"][-1]["content"] == again]
    assert temperatures == [0.0, 0.5, 1.0, 1.5]
    assert "the user's prompt file" in found.notes[0]


def test_mm_vet_averages_over_runs(tmp_path: Path) -> None:
    with endpoint(lambda request, n: Reply(str(n / 2))) as server:
        found = score("mm_vet", tmp_path, server, list("wxyz"), "judge.runs=3", "judge.concurrency=1")
    assert found.per_sample == (0.5,) * 4
    assert len(server.requests) == 12


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("1.0", 1),
        ("0.5 because", 0.5),
        ("0", 0),
        ("1.5", None),
        ("-1", None),
        ("nan", None),
        ("", None),
        ("a", None),
    ],
)
def test_grades(reply: str, grade: float | None) -> None:
    assert parse_grade(reply) == grade


RATINGS = {"good": "8 6\nBecause.", "bad": "8, 2", "odd": "8 out of 10"}


def bench(request: dict[str, Any], _: int) -> Reply:
    answer = request["messages"][-1]["content"].split("[Assistant 2]\n")[1].split("\n")[0]
    return Reply(RATINGS[answer])


def test_llava_bench_compares_with_gpt4(tmp_path: Path) -> None:
    with endpoint(bench) as server:
        found = score("llava_bench", tmp_path, server, ["good", "bad", "odd", "bad"])
    # Judged: 6, 2, 2 of 8, 8, 8; the released script would average -1 in.
    assert found.metrics == {
        "all": 41.7, "conv": 50.0, "detail": 25.0, "gpt4_rating": 8.0, "model_rating": pytest.approx(10 / 3),
        "unjudged": 1,
    }  # fmt: skip
    assert found.per_sample == (6.0, 2.0, None, 2.0)
    assert found.interval[0] < 41.7 < found.interval[1]
    assert found.notes[-1].startswith("unjudged: 1 of 4")


def test_llava_bench_asks_as_released(tmp_path: Path) -> None:
    rules = {
        f"llava_bench_{name}": {"prompt": f"Rate {name}.", "role": "Helper"}
        for name in ("conv", "detail", "complex")
    }
    path = tmp_path / "rule.json"
    path.write_text(json.dumps(rules))
    with endpoint(lambda *_: Reply("8 8")) as server:
        score("llava_bench", tmp_path, server, ["good"] * 4, f"judge.prompt={path}", "judge.concurrency=1")
    assert server.requests[1] == {
        "model": "asked", "temperature": 0.2, "max_tokens": 1024,
        "messages": [
            {"role": "system",
             "content": "You are a helpful and precise assistant for checking the quality of the answer."},
            {"role": "user",
             "content": "[Context]\nA picture of 1.\n\n[Question]\nWhat is 1?\n\n[Helper 1]\nIt is 1.\n\n"
             "[End of Helper 1]\n\n[Helper 2]\ngood\n\n[End of Helper 2]\n\n[System]\nRate detail.\n\n"},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "pair"),
    [
        ("8 7", (8, 7)),
        ("8, 7.5\nx", (8, 7.5)),
        ("8", None),
        ("8 7 6", None),
        ("a b", None),
        ("", None),
        ("nan 7", None),
        ("8 inf", None),
        ("-1 -1", None),
        ("85 90", None),
    ],
)
def test_ratings(reply: str, pair: tuple[float, float] | None) -> None:
    assert parse_ratings(reply) == pair


def test_a_grid_asks_again_what_stayed_unjudged(himap: Command, tmp_path: Path) -> None:
    """Only that: what is in the cache costs nothing, and a cell that is whole is not opened again."""
    write_parquet(RELEASES["mm_vet"], tmp_path / "data")
    words = ["-m", "model=shapes", "model.weights=random", "pruning=none", "task=mm_vet", "tracking=none"]
    words += ["task.data.source=parquet", f"task.data.path={tmp_path / 'data'}", "hydra.sweep.dir=grid"]
    words += ["task.generation.max_new_tokens=1", "task.judge.attempts=1"]
    broken = [True]

    def answer(request: dict[str, Any], _: int) -> Reply:
        return Reply("hm" if broken[0] and "What is 2?" in str(request) else "0.5")

    with endpoint(answer) as server:
        words.append(f"task.judge.base_url={server.url}")
        for n_asked, unjudged in ((4, 1), (5, 0), (5, 0)):
            assert himap("evaluate", *words).code == 0
            [path] = Path("grid").rglob("result.json")
            assert json.loads(path.read_text())["metrics"]["unjudged"] == unjudged
            assert len(server.requests) == n_asked
            broken[0] = False


def test_a_judge_that_grades_nothing_is_an_error(tmp_path: Path) -> None:
    with (
        endpoint(lambda *_: Reply("hm")) as server,
        pytest.raises(UserError, match=r"nothing was judged: no grade"),
    ):
        score("mm_vet", tmp_path, server, ["three"] * 4)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("mm_vet", "prompt=gone.txt"), ("llava_bench", "prompt=gone.json"), ("llava_bench", "prompt=rule.json")],
)
def test_a_wrong_prompt_file_is_known_before_the_model_answers(
    name: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rule.json").write_text("{}")
    overrides = ["judge.base_url=http://127.0.0.1:9/v1", f"judge.{wrong}"]
    with pytest.raises(UserError, match=r"task\.judge\.prompt="):
        task_of(name, tmp_path / "data", "parquet", *overrides).check()


def test_several_captions_of_an_image_are_lines(tmp_path: Path) -> None:
    task = task_of("llava_bench", tmp_path / "d", "original")
    path = tmp_path / "d" / "context.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps({**row, "caption": ["one", "two"]}) for row in rows))
    assert task.samples()[0].hint == "one\ntwo"


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("mm_vet", "e.py", "x = 1", "no text is given to the name `prompt`"),
        ("mm_vet", "e.ipynb", "{", "is no notebook"),
        ("llava_bench", "rule.json", "{}", "has no rule 'llava_bench_complex'"),
        ("llava_bench", "missing.json", None, "cannot be read"),
    ],
)
def test_a_wrong_prompt_file_is_named(
    name: str, file: str, content: str | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / file).write_text(content)
    with (
        endpoint(lambda *_: Reply("1")) as server,
        pytest.raises(UserError, match=rf"task\.judge\.prompt=\S+{file}: {message}"),
    ):
        score(name, tmp_path, server, ["a"] * 4, f"judge.prompt={tmp_path / file}")
