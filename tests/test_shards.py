"""An evaluation in shares: joined, it is the one of a single worker, however the shares came about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fakes
import pytest

from himap import models, tasks, tracking
from himap.commands.evaluate_workers import watch
from himap.errors import ConfigError
from himap.files import exclusive, shared, write_atomic
from himap.progress import Quiet
from himap.shards import Shard
from himap.tasks.base import Sample

MODEL = """
name: tiny
adapter: tiny
architecture: {n_layers: 6, hidden: 64, intermediate: 64, n_heads: 4, n_kv_heads: 4, head_dim: 16, vocab: 100,
  n_system: 2, n_image: 16, n_instruction: 12}
"""
TASK = "name: questions\nadapter: questions\nsplit: search\ndata: {broken: []}\n"
OWN = ("samples_per_second", "environment")
"""What tells the result of one run from that of another with the same answers."""


class Pairs(fakes.Questions):
    """Right where both questions of a pair are right: a score that no share can know by itself."""

    def score(self, samples: Any, predictions: Any) -> Any:
        plain = super().score(samples, predictions)
        right = {s.id: one for s, one in zip(samples, plain.per_sample, strict=True)}
        pairs = [right.get(f"q{2 * i}", 0) * right.get(f"q{2 * i + 1}", 0) for i in range(6)]
        plain.metrics["pairs"] = 100 * sum(pairs) / 6
        return plain


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words after `himap evaluate` that choose the tiny model and its questions."""
    monkeypatch.setattr(fakes, "Questions", Pairs)
    monkeypatch.setitem(models.ADAPTERS, "tiny", "fakes")
    monkeypatch.setitem(tasks.ADAPTERS, "questions", "fakes:questions")
    own = tmp_path / "own"
    for path, text in {"model/tiny.yaml": MODEL, "task/questions.yaml": TASK}.items():
        (own / path).parent.mkdir(parents=True)
        (own / path).write_text(text)
    chosen = ("model=tiny", "task=questions", "tracking=none")
    small = ("pruning.stages.deep.layer=4", "hardware.batch_size=3")
    return ("evaluate", "--config-dir", str(own), *chosen, *small)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that the model was asked."""
    prompts: list[str] = []
    encode = fakes.TinyModel.encode

    def listen(self: Any, batch: Any) -> Any:
        encoded = encode(self, batch)
        prompts.extend(prompt.text for prompt in batch)
        return encoded

    monkeypatch.setattr(fakes.TinyModel, "encode", listen)
    return prompts


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in content.items() if key not in OWN}


def same(one: Path, other: Path) -> bool:
    return (one / "answers.jsonl").read_bytes() == (other / "answers.jsonl").read_bytes() and result(
        one
    ) == result(other)


@pytest.mark.parametrize(
    ("order", "setting"),
    [
        ([1], "task.limit=12"),
        ([3, 1, 2], "task.limit=12"),
        ([2, 1], "task.data.broken=[3,7]"),
        ([5, 1, 2, 3, 4], "task.limit=4"),
    ],
    ids=["one", "several", "with failures", "more than samples"],
)
def test_joined_shares_are_the_whole(
    himap: Any, words: tuple[str, ...], tmp_path: Path, asked: list[str], order: list[int], setting: str
) -> None:
    words = (*words, setting)
    assert himap(*words, "hydra.run.dir=whole").code == 0
    n_asked = len(asked)
    for index in order:
        assert not (tmp_path / "run" / "result.json").exists()
        done = himap(*words, "hydra.run.dir=run", f"shard={index}/{len(order)}")
        assert done.code == 0, done.err
    assert same(tmp_path / "run", tmp_path / "whole")
    assert 0 < result(tmp_path / "run")["metrics"]["pairs"] < 100 or "12" not in setting
    assert len(asked) == 2 * n_asked
    assert "result.json" in done.out


def test_an_interrupted_share_goes_on_and_the_result_waits_for_it(
    himap: Any, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    assert himap(*words, "hydra.run.dir=whole").code == 0
    asked.clear()
    monkeypatch.setattr(fakes, "interrupt_at", 4)
    stopped = himap(*words, "hardware.batch_size=1", "hydra.run.dir=run", "shard=1/2")
    monkeypatch.setattr(fakes, "interrupt_at", None)
    assert stopped.code == 130
    assert "shard=1/2" in stopped.err[-1]
    assert himap(*words, "hydra.run.dir=run", "shard=2/2").code == 0
    assert not (tmp_path / "run" / "result.json").exists()
    assert himap(*words, "hydra.run.dir=run", "shard=1/2").code == 0
    assert same(tmp_path / "run", tmp_path / "whole")
    assert len(asked) == 12


@pytest.mark.parametrize("others", [["shard=2/3", "shard=1/3", "shard=3/3"], ["shard=null"]], ids=str)
def test_another_number_of_workers_goes_on(
    himap: Any, words: tuple[str, ...], tmp_path: Path, asked: list[str], others: list[str]
) -> None:
    assert himap(*words, "hydra.run.dir=whole").code == 0
    asked.clear()
    for shard in ("shard=1/2", *others):
        assert himap(*words, "hydra.run.dir=run", shard).code == 0
    assert same(tmp_path / "run", tmp_path / "whole")
    assert len(asked) == 12, "nobody is asked twice"


def test_shares_go_on_where_one_worker_stopped(
    himap: Any, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    assert himap(*words, "hydra.run.dir=whole").code == 0
    asked.clear()
    monkeypatch.setattr(fakes, "interrupt_at", 0)
    assert himap(*words, "hydra.run.dir=run").code == 130
    monkeypatch.setattr(fakes, "interrupt_at", None)
    assert 0 < len(asked) < 12
    for shard in ("shard=1/2", "shard=2/2"):
        assert himap(*words, "hydra.run.dir=run", shard).code == 0
    assert same(tmp_path / "run", tmp_path / "whole")
    assert len(asked) == 12


def test_failed_samples_are_asked_again_and_joined_anew(
    himap: Any, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert himap(*words, "hydra.run.dir=whole").code == 0
    load = fakes.image

    def sometimes(seed: int) -> Any:
        if seed in (3, 6):
            raise OSError("the disk is away")
        return load(seed)

    monkeypatch.setattr(fakes, "image", sometimes)
    for shard in ("shard=1/2", "shard=2/2"):
        assert himap(*words, "hydra.run.dir=run", shard).code == 0
    assert result(tmp_path / "run")["failed"] == ["q3", "q6"]
    monkeypatch.setattr(fakes, "image", load)
    assert himap(*words, "hydra.run.dir=run", "shard=1/2").code == 0
    assert result(tmp_path / "run")["failed"] == ["q3"]
    assert himap(*words, "hydra.run.dir=run", "shard=2/2").code == 0
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_sample_that_must_not_fail_leaves_no_result(
    himap: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    # The one that is asked last in its share: afterwards all have been asked.
    words = (*words, "task.data.broken=[8]", "task.on_bad_sample=fail", "hydra.run.dir=run")
    for shard in ("shard=1/2", "shard=2/2"):
        done = himap(*words, shard)
        assert done.code == 1
        assert "sample q8 failed" in done.err[-1]
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_finished_share_needs_no_model_and_is_recorded_once(
    himap: Any, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[str] = []
    create = tracking.create
    monkeypatch.setattr(tracking, "create", lambda *args: recorded.append("run") or create(*args))
    for shard in ("shard=1/2", "shard=2/2"):
        assert himap(*words, "hydra.run.dir=run", shard).code == 0
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the model is loaded"))
    done = himap(*words, "hydra.run.dir=run", "shard=1/2")
    assert done.code == 0
    assert "accuracy" in done.out
    assert recorded == ["run"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("shard=1/2", "shard=2/2"), ("shard=1/2", "shard=null"), ("shard=null", "shard=1/2")],
    ids=str,
)
def test_other_settings_are_refused(
    himap: Any, words: tuple[str, ...], tmp_path: Path, first: str, second: str
) -> None:
    assert himap(*words, "hydra.run.dir=run", first).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("answers*")}
    done = himap(*words, "hydra.run.dir=run", second, "pruning.stages.deep.drop=0.5")
    assert done.code == 1
    assert "pruning.stages.deep.drop: 0.75 -> 0.5" in done.err[-1]
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("answers*")} == before


def test_a_share_and_a_whole_run_exclude_each_other(
    himap: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "shards" / "1-of-2").mkdir(parents=True)
    with shared(run), exclusive(run / "shards" / "1-of-2"):
        done = himap(*words, "hydra.run.dir=run", "shard=1/2")
        assert (done.code, len(done.err)) == (1, 1)
        assert done.err[0].startswith(f"shard=1/2: another process answers this share of {run} (wait")
        done = himap(*words, "hydra.run.dir=run", "shard=null")
        assert (done.code, len(done.err)) == (1, 1) and "another run is writing there" in done.err[0]
        assert himap(*words, "hydra.run.dir=run", "shard=2/2").code == 0
    with exclusive(run):
        assert himap(*words, "hydra.run.dir=run", "shard=1/2").code == 1


def test_shares_need_a_folder_to_meet_in(himap: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    done = himap(*words, "shard=1/2")
    assert done.code == 1
    (line,) = done.err
    assert line.startswith("shard=1/2: needs hydra.run.dir=FOLDER, the same for all shares")
    assert not (tmp_path / "outputs").exists()


def test_shares_of_a_multirun_meet_in_its_folder(himap: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    for index in (1, 2):
        drops = "pruning.stages.deep.drop=0.5,0.75"
        done = himap(*words[:3], "-m", *words[3:], drops, f"shard={index}/2", "hydra.sweep.dir=many")
        assert done.code == 0, done.err
    assert sorted(p.parent.name for p in (tmp_path / "many").glob("*/result.json")) == ["0", "1"]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "2", "a/b", "-1/2", "1/2/3", ""])
def test_a_share_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^shard={text}: must be a number and how many there are"):
        Shard.parse(text)


def test_shares_are_disjoint_complete_and_even() -> None:
    samples = [Sample(f"{number:02}", "?") for number in range(17)]
    shares = [Shard(index, 5).of(samples) for index in range(1, 6)]
    assert sorted(sample.id for share in shares for sample in share) == [sample.id for sample in samples]
    assert {len(share) for share in shares} == {3, 4}


def test_questions_about_one_picture_stay_in_one_share() -> None:
    sizes = {"a": 5, "b": 1, "c": 4, "d": 2, "e": 1, "f": 1}
    samples = [Sample(f"{name}{i}", "?", picture=name) for i in range(5) for name in sizes if i < sizes[name]]
    shares = [Shard(index, 2).of(samples) for index in (1, 2)]
    assert sorted(sample.id for share in shares for sample in share) == sorted(s.id for s in samples)
    assert [{sample.picture for sample in share} for share in shares] == [set("ad"), set("bcef")]
    assert [sample.id for sample in shares[0]] == [s.id for s in samples if s.picture in "ad"]


def test_workers_with_equal_process_ids_write_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, names = os.replace, []
    monkeypatch.setattr(os, "getpid", lambda: 7)
    monkeypatch.setattr(os, "replace", lambda *paths: names.append(paths[0]) or replace(*paths))
    for text in ("one", "two"):
        write_atomic(tmp_path / "config.yaml", text)
    assert len(set(names)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.slow
def test_shares_that_end_at_the_same_time_are_joined_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "himap", "evaluate", "task.limit=12", "hardware.n_threads=1"]
    workers = [
        subprocess.Popen(
            [*command, "hydra.run.dir=run", "tracking=offline", f"shard={index}/3"], cwd=tmp_path
        )
        for index in (1, 2, 3)
    ]
    assert [worker.wait(timeout=200) for worker in workers] == [0, 0, 0]
    subprocess.run([*command, "hydra.run.dir=whole", "tracking=none"], cwd=tmp_path, check=True)
    assert same(tmp_path / "run", tmp_path / "whole")
    assert len(list((tmp_path / "run").rglob("*.wandb"))) == 1, "recorded by the one that joined"


WORKERS = ("evaluate", "task.limit=6", "hardware.devices=[cpu,cpu]", "hardware.n_threads=1", "tracking=none")


@pytest.mark.slow
def test_a_worker_for_each_device_gives_the_same(himap: Any, tmp_path: Path) -> None:
    assert himap(*WORKERS[:2], "hydra.run.dir=whole", *WORKERS[3:]).code == 0
    done = himap(*WORKERS, "hydra.run.dir=run")
    assert done.code == 0, done.err
    assert same(tmp_path / "run", tmp_path / "whole")
    assert done.err[-1].startswith("shapes, himap, shapes_short: 6/6")
    logs = sorted((tmp_path / "run" / "workers").iterdir())
    before = [log.read_text() for log in logs]
    assert len(logs) == 2
    assert himap(*WORKERS, "hydra.run.dir=run").out == done.out
    assert [log.read_text() for log in logs] == before, "a second start needs no worker"


@pytest.mark.slow
def test_a_worker_that_fails_is_named_and_the_rest_is_kept(himap: Any, tmp_path: Path) -> None:
    shard = tmp_path / "run" / "shards" / "2-of-2"
    shard.mkdir(parents=True)
    with exclusive(shard):
        done = himap(*WORKERS, "hydra.run.dir=run")
    assert done.code == 1
    assert done.err[-1].startswith("worker 1-cpu failed (1): shard=2/2: another process answers this share")
    assert len((tmp_path / "run" / "shards" / "1-of-2" / "answers.jsonl").read_text().splitlines()) == 3
    assert himap(*WORKERS, "hydra.run.dir=run").code == 0


def test_a_job_array_is_named_where_a_cluster_is_asked_for(himap: Any, words: tuple[str, ...]) -> None:
    done = himap(*words, "hardware=slurm", "hydra.run.dir=run")
    assert done.code == 1
    assert "sbatch --array=1-8 with himap evaluate shard=$SLURM_ARRAY_TASK_ID/8" in done.err[-1]


def test_the_bar_of_all_workers_counts_new_answers_once(tmp_path: Path) -> None:
    class Counting(Quiet):
        n = 0

        def advance(self, n: int = 1, note: str = "") -> None:
            self.n += n

    for name in ("1-of-2", "2-of-2"):
        (tmp_path / "shards" / name).mkdir(parents=True)
    one, two = (tmp_path / "shards" / name / "answers.jsonl" for name in ("1-of-2", "2-of-2"))
    one.write_text("a\nb\n")
    bar = Counting()
    look = watch(tmp_path, bar, 5)
    seen = []
    for path, text in ((two, ""), (two, "c\nd"), (one, "e\n"), (two, "\n"), (two, "f\ng\nh\n")):
        with open(path, "a") as file:
            file.write(text)
        look()
        seen.append(bar.n)
    assert seen == [0, 1, 2, 3, 5], "never more than are left"
