"""What a sweep is summed up in agrees with the files that it was summed up from."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from himap.files import read_jsonl
from himap.report.compare import compare
from himap.report.sweep import write_report
from himap.search.outcome import read_outcome

HEADER = "trial,K1,R1,K2,R2,accuracy,flops_share,heldout_accuracy,heldout_low,heldout_high"


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "front.csv", newline="") as file:
        return list(csv.DictReader(file))


def result(path: Path) -> dict[str, Any]:
    return json.loads((path / "result.json").read_text())


def test_front_csv_has_exactly_the_promised_columns(sweep_folder: Path) -> None:
    assert (sweep_folder / "front.csv").read_text().splitlines()[0] == HEADER


def test_front_csv_agrees_with_the_trials(sweep_folder: Path) -> None:
    found = rows(sweep_folder)
    assert found
    for row in found:
        trial = sweep_folder / "trials" / row["trial"]
        there = result(trial)
        assert float(row["accuracy"]) == pytest.approx(there["metrics"]["accuracy"], abs=1e-4)
        assert float(row["flops_share"]) == pytest.approx(there["flops"]["paper_share"], abs=1e-6)
        params = json.loads((trial / "trial.json").read_text())["params"]
        assert {name: float(row[name]) for name in ("K1", "R1", "K2", "R2")} == params
    shares = [float(row["flops_share"]) for row in found]
    assert shares == sorted(shares)


def test_no_trial_dominates_the_front(sweep_folder: Path) -> None:
    front = [(float(row["accuracy"]), float(row["flops_share"])) for row in rows(sweep_folder)]
    for path in (sweep_folder / "trials").iterdir():
        there = result(path)
        accuracy, share = there["metrics"]["accuracy"], there["flops"]["paper_share"]
        assert not any(accuracy > a + 1e-4 and share < s - 1e-6 for a, s in front)


def test_the_check_is_capped_and_says_so(sweep_folder: Path) -> None:
    found = rows(sweep_folder)
    checked = [row for row in found if row["heldout_accuracy"]]
    # Five by choice, and those that are a baseline anyway.
    assert 5 <= len(checked) <= 7 < len(found)
    assert found[0] in checked and found[-1] in checked
    assert (
        f"{len(checked)} of {len(found)} points of the front were checked"
        in (sweep_folder / "summary.md").read_text()
    )
    for row in checked:
        assert float(row["heldout_low"]) < float(row["heldout_accuracy"]) < float(row["heldout_high"])


def test_differences_and_tests_come_from_the_answers(sweep_folder: Path) -> None:
    comparison = compare(read_outcome(sweep_folder))
    plain = {row["id"]: row["score"] for row in read_jsonl(sweep_folder / "heldout/plain/answers.jsonl")}
    tested = []
    for key, there in comparison.heldout.items():
        if key == "plain":
            assert there.p_value is None
            continue
        scores = {
            row["id"]: row["score"] for row in read_jsonl(sweep_folder / "heldout" / key / "answers.jsonl")
        }
        expected = 100 * np.mean([scores[i] - plain[i] for i in plain])
        assert there.difference is not None and there.difference.value == pytest.approx(expected)
        assert there.p_value is not None and there.p_holm is not None
        assert there.p_value <= there.p_holm <= 1
        tested.append((there.p_value, there.p_holm))
    tested.sort()
    assert tested[0][1] == pytest.approx(min(1, tested[0][0] * len(tested)))
    assert [holm for _, holm in tested] == sorted(holm for _, holm in tested)


def test_the_summary_names_the_papers_configurations(sweep_folder: Path) -> None:
    text = (sweep_folder / "summary.md").read_text()
    for name in ("none (unpruned)", "FastV", "HiMAP (paper)"):
        assert text.count(f"| {name} |") == 2
    assert "reference point accuracy 0, FLOPs share 1" in text
    assert "McNemar" in text


def test_the_picture_shows_something(sweep_folder: Path) -> None:
    from PIL import Image

    with Image.open(sweep_folder / "pareto.png") as image:
        assert image.width > 1000 and image.height > 600
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1_000_000)}
    # Blue front, vermilion HiMAP, green none, orange FastV.
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115), (230, 159, 0)} <= colours


def test_an_unfinished_sweep_can_be_reported(sweep_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(sweep_folder, folder)
    shutil.rmtree(folder / "heldout")
    for number in range(10, 24):
        shutil.rmtree(folder / "trials" / str(number), ignore_errors=True)
    write_report(folder)
    assert all(row["heldout_accuracy"] == "" for row in rows(folder))
    assert "10 of 24 trials have ended" in (folder / "summary.md").read_text()
    shutil.rmtree(folder / "trials")
    shutil.rmtree(folder / "baselines")
    assert write_report(folder).front == []


def test_searched_criteria_are_further_columns(tmp_path: Path) -> None:
    import synthetic

    from himap.search.study import run

    axes = synthetic.axes(C1=["img2txt", "last2img"])
    run(synthetic.sweep(trials=6, seeds=3, axes=axes), tmp_path, synthetic.evaluate)
    write_report(tmp_path)
    assert (tmp_path / "front.csv").read_text().splitlines()[0] == HEADER + ",C1"
    assert {row["C1"] for row in rows(tmp_path)} <= {"img2txt", "last2img"}
    assert not (tmp_path / "baselines").exists() or not list((tmp_path / "baselines").iterdir()), (
        "all fit the axes"
    )


def test_the_report_imports_no_torch(sweep_folder: Path) -> None:
    code = (
        "import sys\nfrom himap.cli import main\n"
        f"main(['report', {str(sweep_folder)!r}])\n"
        "assert not {'torch', 'transformers', 'wandb', 'optuna'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Pareto front" in done.stdout
