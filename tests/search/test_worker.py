"""Laws of a sweep: the budget, equal configurations once, failures written down, changes refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import synthetic

from himap.errors import UserError
from himap.search.config import SAMPLERS, DropAxis, LayerAxis
from himap.search.evaluator import Job, Reply
from himap.search.outcome import read_outcome
from himap.search.study import prepare, run
from himap.search.worker import Worker
from himap.strategy import Strategy


class Counting:
    """The synthetic evaluator with a memory of what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, jobs: Sequence[Job], split: str, advance: Callable[[float], None]) -> list[Reply]:
        self.asked += [(synthetic.space().key(job.strategy), split) for job in jobs]
        return synthetic.evaluate(jobs, split, advance)


def told(folder: Path, storage: str = "sqlite") -> optuna.Study:
    from himap.search.storage import open_storage

    return optuna.load_study(study_name="sweep", storage=open_storage(storage, folder))


SMALL = synthetic.axes(R1=DropAxis(0, 0.9, 0.3), R2=DropAxis(0, 0.9, 0.3))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_spends_the_budget_on_different_configurations(sampler: str, tmp_path: Path) -> None:
    evaluate = Counting()
    assert run(synthetic.sweep(sampler=sampler, trials=20, seeds=8, axes=SMALL), tmp_path, evaluate)
    outcome = read_outcome(tmp_path)
    assert len(outcome.trials) == 20
    assert len(evaluate.asked) == len(set(evaluate.asked)), "equal configurations are evaluated once"
    assert [t.number for t in told(tmp_path).get_trials()] == sorted(
        int(p.name) for p in (tmp_path / "trials").iterdir()
    )
    assert set(outcome.baselines) == {"none", "fastv", "himap"}
    front_keys = {trial.key for trial in outcome.front}
    assert front_keys <= outcome.heldout.keys()
    assert {baseline.key for baseline in outcome.baselines.values()} <= outcome.heldout.keys()


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_larger_budget_goes_on_where_it_stopped(storage: str, tmp_path: Path) -> None:
    evaluate = Counting()
    run(synthetic.sweep(trials=8, seeds=4, storage=storage), tmp_path, evaluate)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "trials").glob("*/result.json")}
    n_before = len(evaluate.asked)
    run(synthetic.sweep(trials=8, seeds=4, storage=storage), tmp_path, evaluate)
    assert len(evaluate.asked) == n_before, "a spent budget costs nothing"
    run(synthetic.sweep(trials=12, seeds=4, storage=storage), tmp_path, evaluate)
    assert len(read_outcome(tmp_path).trials) == 12
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(evaluate.asked) == len(set(evaluate.asked))


def test_a_changed_configuration_is_refused_key_by_key(tmp_path: Path) -> None:
    run(synthetic.sweep(trials=3, seeds=0), tmp_path, synthetic.evaluate)
    changed = synthetic.sweep(
        {"task": {"limit": 300}}, trials=3, seeds=0, axes=synthetic.axes(K1=LayerAxis(1, 5)), sampler="random"
    )
    with pytest.raises(UserError) as caught:
        run(changed, tmp_path, synthetic.evaluate)
    message = str(caught.value)
    assert "search.axes.K1.high: 6 -> 5" in message
    assert "search.sampler: ehvi -> random" in message
    assert "task.limit: 256 -> 300" in message
    assert "K2" not in message and "\n" not in message


def test_a_failing_trial_is_written_down_and_the_sweep_goes_on(tmp_path: Path) -> None:
    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, folder: Path) -> dict[str, Any]:
        if folder.parent.name == "trials" and int(folder.name) % 3 == 1:
            raise ValueError("no such head")
        return synthetic.answer(strategy, split, folder)

    run(synthetic.sweep(trials=12, seeds=6), tmp_path, evaluate)
    outcome = read_outcome(tmp_path)
    assert len(outcome.failed) + len(outcome.trials) == 12
    assert {error for _, error in outcome.failed} == {"ValueError: no such head"}
    assert "no such head" in (tmp_path / "trials" / "1" / "traceback.txt").read_text()
    states = {trial.number: trial.state.name for trial in told(tmp_path).get_trials()}
    assert {record.number for record, _ in outcome.failed} == {n for n, s in states.items() if s == "FAIL"}


def test_a_result_without_its_numbers_is_a_failure(tmp_path: Path) -> None:
    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, folder: Path) -> dict[str, Any]:
        result = synthetic.answer(strategy, split, folder)
        if folder.name == "2":
            result["metrics"]["accuracy"] = float("nan")
        return result

    run(synthetic.sweep(trials=6, seeds=0), tmp_path, evaluate)
    assert [record.number for record, _ in read_outcome(tmp_path).failed] == [2]


def test_failures_in_a_row_stop_the_sweep(tmp_path: Path) -> None:
    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, folder: Path) -> dict[str, Any]:
        if folder.parent.name == "trials":
            raise RuntimeError("weights are gone")
        return synthetic.answer(strategy, split, folder)

    with pytest.raises(
        UserError, match="5 trials in a row failed, the last one with: RuntimeError: weights are gone"
    ):
        run(synthetic.sweep(trials=50, group=1), tmp_path, evaluate)


def test_a_small_space_ends_before_its_budget(tmp_path: Path) -> None:
    axes = synthetic.axes(
        K1=LayerAxis(2, 3), R1=DropAxis(0.5, 0.5), K2=LayerAxis(4, 5), R2=DropAxis(0, 0.5, 0.5)
    )
    run(synthetic.sweep(trials=30, seeds=4, axes=axes), tmp_path, synthetic.evaluate)
    # R2 = 0 makes K2 irrelevant: 2 x 1 + 2 x 2 different configurations.
    assert len(read_outcome(tmp_path).trials) == 6


@pytest.mark.parametrize("group", [1, 3])
def test_a_stop_by_the_user_goes_on_under_the_same_numbers(group: int, tmp_path: Path) -> None:
    stopped: list[Path] = []

    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, folder: Path) -> dict[str, Any]:
        if folder.name == "4" and folder not in stopped:
            stopped.append(folder)
            raise KeyboardInterrupt
        return synthetic.answer(strategy, split, folder)

    sweep = synthetic.sweep(trials=8, seeds=4, group=group)
    with pytest.raises(KeyboardInterrupt):
        run(sweep, tmp_path, evaluate)
    params = [trial.params for trial in told(tmp_path).get_trials()]
    # The process still lives, so its trials count as owned; give them to a dead one as a real stop would.
    files = sorted(tmp_path.glob("trials/*/trial.json"))
    for file in files:
        file.write_text(file.read_text().replace('"started": "', '"started": "0'))
    run(sweep, tmp_path, evaluate)
    assert [trial.params for trial in told(tmp_path).get_trials()][: len(files)] == params[: len(files)]
    attempts = [json.loads(file.read_text())["attempt"] for file in files]
    assert attempts == [1] * len(files), "a user's stop does not count against any trial"
    assert len(read_outcome(tmp_path).trials) == 8


def test_a_lost_database_comes_back_from_the_folder(tmp_path: Path) -> None:
    evaluate = Counting()
    run(synthetic.sweep(trials=10, seeds=4), tmp_path, evaluate)
    before = [(t.number, t.values) for t in told(tmp_path).get_trials()]
    params = [t.params for t in told(tmp_path).get_trials()]
    (tmp_path / "study.db").unlink()
    n_asked = len(evaluate.asked)
    run(synthetic.sweep(trials=12, seeds=4), tmp_path, evaluate)
    after = told(tmp_path).get_trials()
    assert [(t.number, t.values) for t in after][: len(before)] == before
    assert [t.params for t in after][: len(before)] == [pytest.approx(p) for p in params]
    assert [split for _, split in evaluate.asked[n_asked:]].count("search") == 2


def test_a_database_of_another_folder_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    prepare(synthetic.sweep(trials=3, storage=url, name="mine"), tmp_path / "a")
    with pytest.raises(UserError, match=r"search\.name=mine: another folder has a study of this name"):
        prepare(synthetic.sweep(trials=3, storage=url, name="mine"), tmp_path / "b")


def test_a_database_out_of_reach_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"search\.storage=sqlite:////nowhere/at/all\.db: cannot be opened"
    ) as caught:
        prepare(synthetic.sweep(storage="sqlite:////nowhere/at/all.db"), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_trial_without_a_folder_is_begun_under_its_number(storage: str, tmp_path: Path) -> None:
    """Its worker was killed between its entry in the database and the one on disk."""
    sweep = synthetic.sweep(trials=6, seeds=3, storage=storage)
    run(sweep, tmp_path, synthetic.evaluate)
    params = {"K1": 5, "R1": 0.4, "K2": 9, "R2": 0.35}
    key = sweep.space.key(sweep.space.strategy(params))
    half_begun = sweep.space.trial(
        params, True, state=optuna.trial.TrialState.RUNNING, user_attrs={"key": key}
    )
    told(tmp_path, storage).add_trial(half_begun)
    evaluate = Counting()
    assert run(synthetic.sweep(trials=8, seeds=3, storage=storage), tmp_path, evaluate)
    outcome = read_outcome(tmp_path)
    assert len(outcome.trials) == 8
    assert (outcome.trials[6].number, outcome.trials[6].params) == (6, params)
    assert evaluate.asked.count((key, "search")) == 1


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_what_another_host_has_told_just_now_is_no_error(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker reads of a running trial, whose own worker tells it and leaves before it is looked for."""
    run(synthetic.sweep(trials=6, seeds=3, storage=storage), tmp_path, synthetic.evaluate)
    before = {trial.number: trial.values for trial in told(tmp_path, storage).get_trials()}
    orphans = Worker._orphans

    def outdated(worker: Worker, trials: Any) -> Any:
        return [*orphans(worker, trials), trials[4]]

    monkeypatch.setattr(Worker, "_orphans", outdated)
    assert run(synthetic.sweep(trials=8, seeds=3, storage=storage), tmp_path, synthetic.evaluate)
    after = {trial.number: trial.values for trial in told(tmp_path, storage).get_trials()}
    assert len(after) == 8 and before.items() <= after.items()
