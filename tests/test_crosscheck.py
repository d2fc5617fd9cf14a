"""The cross-check's own arithmetic: what counts as agreement, and that neither side can hide a difference."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "lmms_eval"


def module(name: str) -> ModuleType:
    """A file of the benchmark, which is no package."""
    spec = importlib.util.spec_from_file_location(f"crosscheck_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


compare, judge = module("compare"), module("judge")


def row(ours: float, theirs: float, reason: str = "", documents: Any = ((), ()), options: str = "") -> Any:
    return compare.figure("pope", "pope_recall", options, ours, theirs, documents, reason)


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees"),
    [
        (70.0, 100 * 0.7, True),
        (100 * (0.1 + 0.2), 30.0, True),  # the last bit
        (73.5673315681, 73.5673315682, False),  # the twelfth digit
        (0.0, 1e-9, False),
        (87.5, 87.4, False),
    ],
)
def test_only_rounding_is_agreement(ours: float, theirs: float, agrees: bool) -> None:
    found = row(ours, theirs)
    assert found.agrees is agrees
    assert found.difference == ours - theirs


def test_documents_that_cancel_out_are_a_difference() -> None:
    found = row(50.0, 50.0, documents=([1.0, 0.0, 0.3], [0.0, 1.0, 0.1 + 0.2]))
    assert (found.n_documents, found.n_differ, found.agrees) == (3, 2, False)
    with pytest.raises(ValueError, match="argument 2"):
        row(50.0, 50.0, documents=([1.0, 0.0], [1.0]))


def test_prompts_are_compared_to_the_character() -> None:
    found = compare.prompts("mme", "", ["a\nb", "c"], ["a \nb", "c"], "a space")
    assert (found.n, found.n_equal, found.agrees) == (2, 1, False)
    assert (found.ours, found.theirs) == ("a\nb", "a \nb")
    assert compare.prompts("mme", "", ["a"], ["a"]).agrees
    with pytest.raises(ValueError, match="argument 2"):
        compare.prompts("mme", "", ["a"], ["a", "b"])


def test_a_difference_needs_a_reason_and_a_reason_a_difference() -> None:
    equal, explained, unexplained = row(1, 1), row(1, 2, "another parser"), row(1, 2)
    idle = row(1, 1, "another parser", options="parser=exact")
    rows = [equal, explained, unexplained, idle]
    assert compare.unexplained(rows) == [unexplained]
    assert compare.unneeded(rows) == [idle]
    # One metric of a run may agree by chance, as long as another shows what the reason says.
    assert compare.unneeded([explained, row(3, 3, "another parser")]) == []


def test_a_reason_is_kept_only_beside_its_difference() -> None:
    kept = compare.record(row(1, 2, "another parser"))
    assert (kept["reason"], kept["agrees"], kept["difference"]) == ("another parser", False, -1)
    assert compare.record(row(1, 1, "another parser"))["reason"] == ""
    json.dumps(kept)


def test_a_metric_may_be_a_sum() -> None:
    metrics = {"perception": 1450.0, "cognition": 516.5}
    assert compare.value(metrics, "perception+cognition") == 1966.5
    assert compare.value(metrics, "cognition") == 516.5
    with pytest.raises(KeyError):
        compare.value(metrics, "perception+speed")


def test_requests_to_the_judge_are_compared_once_each() -> None:
    def body(text: str, **settings: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}], **settings}

    ours = [
        body("a", model="x", temperature=0.2),
        body("a", model="x", temperature=0.2),
        body("b", model="x"),
    ]
    theirs = [body("a", model="y", temperature=0.0), body("c", model="z", temperature=0.5)]
    theirs[1]["messages"].insert(0, {"role": "system", "content": "be kind"})
    found = compare.requests("llava_bench", ours, theirs)
    assert (found.n_ours, found.n_theirs, found.n_equal, found.agrees) == (2, 2, 1, False)
    assert compare.unexplained([found]) == [found]
    assert compare.requests("llava_bench", ours, ours[::-1]).agrees
    assert not compare.requests("llava_bench", ours, ours[:1]).agrees
    assert found.ours == {"model": "x", "temperature": 0.2, "system": []}
    assert found.theirs == {"model": ["y", "z"], "temperature": [0.0, 0.5], "system": [[], ["be kind"]]}


def test_the_judges_reply_depends_on_the_request_alone() -> None:
    first = judge.reply("[Context]\na\n\n[Question]\nWhat is 1?")
    assert first == judge.reply("[Context]\na\n\n[Question]\nWhat is 1?")
    assert first != judge.reply("[Context]\na \n\n[Question]\nWhat is 1?")
    assert all(1 <= float(word) <= 10 for word in first.split("\n")[0].split())
    # MM-Vet's askers differ in all but the last row, and in the blanks around it.
    rows = [
        "What is x? | 1 | 0.5\nWhat is 3? | a <AND> b | a dog | ",
        "Grade it.\n\nWhat is 3? | a <AND> b | a dog |",
    ]
    assert judge.reply(rows[0]) == judge.reply(rows[1])
    assert {judge.reply(f"What is {n}? | a | b |") for n in range(40)} > {"0.0", "1.0"}
    assert [
        len(judge.of_task(name, [{"messages": [{"content": "[Context]"}]}])) for name in judge.JUDGED
    ] == [1, 0]
