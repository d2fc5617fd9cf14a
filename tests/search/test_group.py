"""Laws of groups: what a pass costs, how many trials it takes, and that each trial is still a trial."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import synthetic

import himap.commands.sweep
import himap.progress
from himap.search.config import DropAxis, LayerAxis
from himap.search.evaluator import Job, Reply, evaluate_once
from himap.search.group import Units, fitting, size
from himap.search.outcome import read_outcome
from himap.search.sampler import stratified
from himap.search.space import Params
from himap.search.study import run
from himap.strategy import Stage, Strategy
from himap.trie import Node, trie

UNITS = Units(synthetic.N_LAYERS, synthetic.N_IMAGE, 17)


def strategy(*stages: tuple[int, float, str]) -> Strategy:
    return Strategy("s", tuple(Stage(*stage) for stage in stages))


def test_units_of_two_strategies_are_those_counted_by_hand() -> None:
    one = strategy((2, 0.5, "img2txt"), (8, 0.75, "img2img"))
    other = strategy((2, 0.5, "img2txt"), (10, 0.0, "img2img"))
    # Two layers of 144, six of 72 and four of 18 image tokens; two of 144 and ten of 72. And 17 of text.
    first, second = 2 * 161 + 6 * 89 + 4 * 35, 2 * 161 + 10 * 89
    assert UNITS.apart([one, other]) == first + second
    assert UNITS.together([one, other]) == 2 * 161 + 10 * 89 + 4 * 35
    assert UNITS.together([one, one]) == first == UNITS.apart([one])
    assert UNITS.new(other, UNITS.layers(one)) == pytest.approx(4 * 89 / second)


@pytest.mark.parametrize("change", [(2, 0.5, "random"), (2, 0.6, "img2txt"), (3, 0.5, "img2txt")])
def test_only_equal_stages_are_shared(change: tuple[int, float, str]) -> None:
    one, other = strategy((2, 0.5, "img2txt")), strategy(change)
    before = min(stage.stages[0].layer for stage in (one, other))
    assert UNITS.together([one, other]) == UNITS.apart([one, other]) - before * (synthetic.N_IMAGE + 17)


def test_units_in_one_pass_are_those_of_the_trie_that_is_walked() -> None:
    space, rng = synthetic.space(C1=["img2txt", "random"]), random.Random(0)
    strategies = [space.strategy(space.draw(rng)) for _ in range(40)]

    def walked(node: Node, first: int, n_image: int) -> int:
        depth = UNITS.n_layers if node.strategies else max(s.layer for s, _ in node.children.values())
        below = sum(
            walked(child, stage.layer, kept) for ((_, (kept,)), (stage, child)) in node.children.items()
        )
        return (depth - first) * (n_image + UNITS.n_text) + below

    assert UNITS.together(strategies) == walked(trie(strategies, [UNITS.n_image]), 0, UNITS.n_image)


def test_seeds_of_groups_cover_all_costs_and_share_their_layers() -> None:
    space = synthetic.space()
    alone = stratified(space, 24, synthetic.share, 0)
    shared = stratified(space, 24, synthetic.share, 0, UNITS)

    def units(seeds: list[Params]) -> float:
        strategies = [space.strategy(params) for params in seeds]
        return UNITS.apart(strategies) / UNITS.together(strategies)

    shares = sorted(synthetic.share(space.strategy(params)) for params in shared)
    assert len({space.key(space.strategy(params)) for params in shared}) == 24
    assert max(b - a for a, b in itertools.pairwise(shares)) <= 2.01 * (shares[-1] - shares[0]) / 22
    assert units(shared) > 1.5 * units(alone)


def test_a_group_takes_what_fits_what_waits_and_what_is_left() -> None:
    assert size(32, n_left=64, n_workers=1, n_waiting=26, n_known=0) == 26
    assert size(16, n_left=64, n_workers=1, n_waiting=26, n_known=0) == 16
    assert size(32, n_left=64, n_workers=4, n_waiting=26, n_known=0) == 7
    assert size(32, n_left=38, n_workers=1, n_waiting=0, n_known=26) == 6
    assert size(32, n_left=38, n_workers=1, n_waiting=0, n_known=None) == 32
    assert size(32, n_left=5, n_workers=2, n_waiting=0, n_known=60) == 3
    assert size(32, n_left=9, n_workers=1, n_waiting=0, n_known=0) == 1


def test_memory_limits_a_group() -> None:
    assert fitting(2048, batch_size=32, n_tokens=161, hidden=128, bytes_per_number=4) == 32
    assert fitting(2048, batch_size=32, n_tokens=671, hidden=4096, bytes_per_number=2) == 12
    assert fitting(0, batch_size=32, n_tokens=671, hidden=4096, bytes_per_number=2) == 1


class Watching:
    """The stand-in, with a look at the sweep's folder during each group."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []

    def __call__(self, jobs: Sequence[Job], split: str, advance: Callable[[float], None]) -> list[Reply]:
        if jobs[0].folder.parent.name == "trials":
            records = [json.loads((job.folder / "trial.json").read_text()) for job in jobs]
            assert len({json.dumps(record["owner"]) for record in records}) == 1
            assert all((job.folder / ".heartbeat").exists() for job in jobs)
            assert not any((job.folder / "result.json").exists() for job in jobs)
            self.groups.append([record["number"] for record in records])
        return synthetic.evaluate(jobs, split, advance)


@pytest.mark.parametrize("sampler", ["ehvi", "tpe", "grid"])
def test_a_group_is_as_large_as_asked_and_the_budget_holds(sampler: str, tmp_path: Path) -> None:
    evaluate = Watching()
    run(synthetic.sweep(trials=22, seeds=8, group=6, sampler=sampler), tmp_path, evaluate)
    assert [len(group) for group in evaluate.groups] == [6, 6, 6, 4]
    outcome = read_outcome(tmp_path)
    assert sorted(itertools.chain(*evaluate.groups)) == [trial.number for trial in outcome.trials]
    assert len({trial.key for trial in outcome.trials}) == 22, "no configuration twice in a group"


def test_what_the_evaluator_raises_fails_the_whole_group(tmp_path: Path) -> None:
    calls: list[int] = []

    def evaluate(jobs: Sequence[Job], split: str, advance: Callable[[float], None]) -> list[Reply]:
        if jobs[0].folder.parent.name == "trials":
            calls.append(len(jobs))
            if len(calls) == 2:
                raise RuntimeError("no kernel image")
        return synthetic.evaluate(jobs, split, advance)

    run(synthetic.sweep(trials=12, seeds=4, group=4), tmp_path, evaluate)
    outcome = read_outcome(tmp_path)
    assert [(record.number, error) for record, error in outcome.failed] == [
        (number, "RuntimeError: no kernel image") for number in range(4, 8)
    ]
    assert len(outcome.trials) == 8


def test_what_failed_is_not_chosen_again(tmp_path: Path) -> None:
    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, folder: Path) -> dict[str, Any]:
        if folder.parent.name == "trials" and int(folder.name) % 2:
            raise ValueError("no such head")
        return synthetic.answer(strategy, split, folder)

    axes = synthetic.axes(
        K1=LayerAxis(2, 3), R1=DropAxis(0.5, 0.5), K2=LayerAxis(4, 5), R2=DropAxis(0, 0.5, 0.5)
    )
    run(synthetic.sweep(trials=12, seeds=2, group=2, axes=axes), tmp_path, evaluate)
    outcome = read_outcome(tmp_path)
    # R2 = 0 makes K2 irrelevant: 2 x 1 + 2 x 2 different configurations.
    assert len(outcome.trials) == len(outcome.failed) == 3


def test_every_trial_of_a_group_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("himap.search.owner._BEAT_S", 0.01)

    def evaluate(jobs: Sequence[Job], split: str, advance: Callable[[float], None]) -> list[Reply]:
        if jobs[0].folder.parent.name == "trials":
            beats = [job.folder / ".heartbeat" for job in jobs]
            for beat in beats:
                os.utime(beat, (0, 0))
            deadline = time.monotonic() + 30
            while not all(beat.stat().st_mtime for beat in beats) and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append([beat.stat().st_mtime > 0 for beat in beats])
        return synthetic.evaluate(jobs, split, advance)

    seen: list[list[bool]] = []
    run(synthetic.sweep(trials=3, seeds=0, group=3, heldout_points=0), tmp_path, evaluate)
    assert seen == [[True] * 3]


def test_several_strategies_are_evaluated_once_and_together(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def evaluate(jobs: Sequence[Job], split: str, advance: Callable[[float], None]) -> list[Reply]:
        asked.append([job.folder.name for job in jobs])
        replies = synthetic.evaluate(jobs, split, advance)
        return [
            ValueError("b is bad") if job.folder.name == "b" else r
            for job, r in zip(jobs, replies, strict=True)
        ]

    jobs = [Job(synthetic.HIMAP, tmp_path / name) for name in "cab"]
    with pytest.raises(ValueError, match="b is bad"):
        evaluate_once(evaluate, jobs, "heldout", lambda share: None)
    assert (tmp_path / "c" / "result.json").exists(), "the others are kept"
    with pytest.raises(ValueError, match="b is bad"):
        evaluate_once(evaluate, jobs, "heldout", lambda share: None)
    assert asked == [["c", "a", "b"], ["b"]]


def test_the_bar_moves_within_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    from himap.commands.sweep import Progress
    from himap.progress import Lines
    from himap.search.front import Point
    from himap.search.worker import Finished

    class Recorder:
        def record_trial(self, number: int) -> None:
            pass

    class Bar(Lines):
        def advance(self, n: int = 1, note: str = "") -> None:
            super().advance(n, note)
            seen.append(self._done)

    seen: list[int] = []
    monkeypatch.setattr(himap.progress, "_SECONDS_BETWEEN_LINES", -1.0)  # an estimate at each step
    monkeypatch.setattr(himap.commands.sweep, "bar", Bar)
    progress = Progress(Recorder())
    progress.phase("trials", total=7, done=3)
    for share in (0.1, 0.3, 0.6):
        progress.progress(4, share)
    assert seen == [4, 5]
    for number in range(4):
        progress.trial(Finished(number, {}, Point(50.0, 0.5), None))
    assert seen[-1] == 7 and seen == sorted(seen)
