"""Two runs over the same samples are compared in pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from himap.errors import UserError
from himap.report.pair import pair
from himap.result import Result
from tests.conftest import Command


def run_in(folder: Path, scores: list[float | None], primary: float | None = None, **more: Any) -> Path:
    """A run's folder whose samples have these scores; None for one without."""
    folder.mkdir()
    group, category = more.get("group", lambda _: ""), more.get("category", lambda _: "")
    rows = [
        {"id": f"q{i}", "score": s, "group": group(i), "category": category(i)} for i, s in enumerate(scores)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = [s for s in scores if s is not None]
    value = 100 * sum(known) / len(known) if primary is None else primary
    metric = more.get("metric", "accuracy")
    result = Result(
        "m", more.get("pruning", "none"), {}, [], "", {}, task=more.get("task", "pope"), split="test",
        n_samples=len(known), metrics={metric: value, "primary": metric},
    )  # fmt: skip
    result.save(folder / "result.json")
    return folder


def test_right_and_wrong(tmp_path: Path) -> None:
    # Only the first right: 6; only the second: 1; exact McNemar 2 * (C(7,0) + C(7,1)) / 2^7 = 0.125.
    a = run_in(tmp_path / "a", [1.0] * 6 + [0.0] + [1.0] * 13)
    b = run_in(tmp_path / "b", [0.0] * 6 + [1.0] + [1.0] * 13)
    found = pair(a, b)
    assert found.difference.value == pytest.approx(25)
    assert found.difference.low < 25 < found.difference.high
    assert found.mcnemar is not None
    assert (found.mcnemar.n_only_first, found.mcnemar.n_only_second) == (6, 1)
    assert found.mcnemar.p_value == pytest.approx(0.125)
    assert found.notes == []
    assert pair(b, a).difference.value == pytest.approx(-25)


def test_only_common_samples_count(tmp_path: Path) -> None:
    found = pair(run_in(tmp_path / "a", [1.0, None, 1.0]), run_in(tmp_path / "b", [0.0, 1.0, 1.0]))
    assert (found.n_both, found.n_one, found.difference.value) == (2, 1, 50)
    assert found.notes == ["1 samples were scored by one run only and are left out"]


def test_scores_in_the_metrics_own_unit_have_no_mcnemar(tmp_path: Path) -> None:
    a = run_in(tmp_path / "a", [80.0, 120.0, 60.5], primary=86.83)
    found = pair(a, run_in(tmp_path / "b", [70.0, 120.0, 60.5], primary=83.5))
    assert (found.scale, found.mcnemar) == (1.0, None)
    assert found.difference.value == pytest.approx(10 / 3)


def test_a_groups_samples_are_drawn_together(tmp_path: Path) -> None:
    # Both questions of an image fail together: half as many independent units, a wider interval.
    scores = list(np.repeat([1.0, 0.0] * 20, 2))
    width = {}
    for name, group in (("alone", lambda _: ""), ("pairs", lambda i: f"image{i // 2}")):
        a = run_in(tmp_path / f"{name}-a", scores, group=group)
        difference = pair(a, run_in(tmp_path / f"{name}-b", [1.0] * 80, group=group)).difference
        width[name] = difference.high - difference.low
    assert width["pairs"] > 1.2 * width["alone"]


def test_a_metric_that_is_no_mean_is_noted(tmp_path: Path) -> None:
    found = pair(
        run_in(tmp_path / "a", [1.0, 0.0], primary=1500.0), run_in(tmp_path / "b", [1.0, 1.0], primary=1900.0)
    )
    assert "is no plain mean over samples" in found.notes[0]


def test_mmes_points_are_compared_as_points(tmp_path: Path) -> None:
    # Two categories of two images: 4 questions each. The first run has all of a category and one of four of
    # the other: 200 + 25; the second 75 + 50 and none.
    more: dict[str, Any] = {"task": "mme", "metric": "total", "group": lambda i: f"image{i // 2}"}
    more["category"] = lambda i: "count" if i < 4 else "OCR"
    a = run_in(tmp_path / "a", [1, 1, 1, 1, 1, 0, 0, 0], 225, **more)
    b = run_in(tmp_path / "b", [1, 1, 1, 0, 0, 0, 0, 0], 125, **more)
    found = pair(a, b)
    assert found.headline is not None
    assert found.headline.value == pytest.approx(100)
    # By image: 0 and 150 points in one category, 50 and 0 in the other; two are drawn of each.
    assert (found.headline.low, found.headline.high) == pytest.approx((0, 200))
    assert found.difference.value == pytest.approx(25)
    assert found.notes == []
    # An image that one run could not answer in full has no points.
    c = run_in(tmp_path / "c", [1, 1, 0, None, 0, 0, 0, 0], 200, **more)
    assert pair(a, c).headline is not None
    assert pair(a, c).headline.value == pytest.approx(25)


def test_popes_macro_accuracy_is_compared_within_its_splits(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "metric": "macro_accuracy",
        "category": lambda i: "random" if i < 2 else "popular",
    }
    a = run_in(tmp_path / "a", [1, 1, 1, 0, 0, 0], 62.5, **more)
    b = run_in(tmp_path / "b", [0, 0, 1, 0, 0, 0], 12.5, **more)
    found = pair(a, b)
    assert found.headline == pytest.approx((50, 50, 50))
    assert found.difference.value == pytest.approx(100 / 3)


def test_runs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    a = run_in(tmp_path / "a", [1.0])
    with pytest.raises(UserError, match="task is pope and mme"):
        pair(a, run_in(tmp_path / "b", [1.0], task="mme"))
    with pytest.raises(UserError, match="no sample was scored by both"):
        pair(a, run_in(tmp_path / "c", [None], primary=0.0))
    with pytest.raises(UserError, match=r"missing/result\.json"):
        pair(a, tmp_path / "missing")
    (a / "answers.jsonl").unlink()
    with pytest.raises(UserError, match=r"answers\.jsonl: no such file"):
        pair(a, a)


def test_the_command_prints_it(himap: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    run_in(tmp_path / "a", [1.0] * 9 + [0.0])
    run_in(tmp_path / "b", [1.0] * 8 + [0.0] * 2, pruning="himap")
    outcome = himap("report", "--compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert outcome.code == 0
    assert "+10.00" in outcome.out
    assert "McNemar's p (exact)" in outcome.out
