"""Weights are part of what a run is: retrained ones at the same path are others, copied ones the same."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic

from himap import models, tasks
from himap.config import FlopsConfig, ModelConfig
from himap.config.compose import compose
from himap.errors import UserError
from himap.files import write_json
from himap.models import fingerprint as module
from himap.models.fingerprint import fingerprint
from himap.search.study import check
from himap.search.weights import with_weights


def weights(folder: Path, seed: int = 0, size: int = 100_000, header: bytes = b"head") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(header + random.Random(seed).randbytes(size))
    return folder


def configured(path: Path | str, **changes: Any) -> ModelConfig:
    config = compose("flops", FlopsConfig, ["model=llava_1_5_7b"]).model
    return replace(config, path=str(path), **changes)


@pytest.fixture(params=["whole", "in blocks"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in blocks":
        for name, value in {"_WHOLE": 1000, "_EDGE": 200, "_BLOCK": 16, "_N_BLOCKS": 500}.items():
            monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("how")
def test_a_copy_is_the_same_and_retrained_weights_are_not(tmp_path: Path) -> None:
    first = fingerprint(configured(weights(tmp_path / "one")))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert fingerprint(configured(tmp_path / "two")) == first
    for change in ({"seed": 1}, {"header": b"haed"}, {"size": 100_001}):
        assert fingerprint(configured(weights(tmp_path / "one", **change))) != first, change
    assert fingerprint(configured(weights(tmp_path / "one"))) == first


@pytest.mark.usefixtures("how")
def test_one_retrained_layer_is_seen(tmp_path: Path) -> None:
    first = fingerprint(configured(weights(tmp_path)))
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    for start in (500, 40_000, 99_000):
        changed = data[:start] + random.Random(2).randbytes(1000) + data[start + 1000 :]
        (tmp_path / "model.safetensors").write_bytes(changed[: len(data)])
        assert fingerprint(configured(tmp_path)) != first, start


def test_of_a_large_file_little_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = list(module._blocks(10 * 2**30))
    assert sum(length for _, length in blocks) < 8 * 2**20
    assert all(start >= 0 and start + length <= 10 * 2**30 for start, length in blocks)


def test_the_hub_gives_its_commit_and_random_weights_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = weights(tmp_path / "models--owner--name" / "snapshots" / "0a1b2c")
    monkeypatch.setattr(module, "checkpoint_folder", lambda *_: snapshot)
    assert fingerprint(configured("owner/name")) == "commit 0a1b2c"
    assert fingerprint(configured("owner/name", weights="random")) is None


def test_the_embedded_model_has_one() -> None:
    config = compose("flops", FlopsConfig, ["model=shapes"]).model
    assert str(fingerprint(config)).startswith("sha256 ")


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words that evaluate a model of made weights on made questions."""
    monkeypatch.setitem(models.ADAPTERS, "tiny", "fakes")
    monkeypatch.setitem(tasks.ADAPTERS, "questions", "fakes:questions")
    weights(tmp_path / "weights")
    changes = ("model.adapter=tiny", f"model.path={tmp_path / 'weights'}", "model.architecture.n_layers=6")
    task = ("task.adapter=questions", "+task.data.broken=[]", "pruning=fastv", "tracking=none")
    return ("evaluate", *changes, *task, "hydra.run.dir=run")


def test_answers_of_other_weights_are_refused(himap: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    assert himap(*words).code == 0
    assert himap(*words).code == 0
    weights(tmp_path / "weights", seed=1)
    done = himap(*words)
    assert done.code == 1
    assert 'was made with other settings: weights: "sha256 ' in done.err[-1]


def test_a_folder_from_before_goes_on_and_says_so(himap: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    assert himap(*words).code == 0
    path = tmp_path / "run" / "answers.identity.json"
    identity = json.loads(path.read_text())
    del identity["weights"]
    path.write_text(json.dumps(identity))
    done = himap(*words)
    assert done.code == 0
    assert sum("whether they are the same cannot be told" in line for line in done.err) == 1
    assert himap(*words, "task.limit=3").code == 1, "other settings are compared as ever"


def test_counting_and_helping_read_no_weights(
    himap: Any, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_digest", lambda *_: pytest.fail("weights are read"))
    assert himap("flops", *words[1:4], "pruning=fastv").code == 0
    assert himap("evaluate", "--help").code == 0


def test_a_sweep_belongs_to_its_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "sweep"
    config = configured(weights(tmp_path / "weights"))
    sweep = with_weights(synthetic.sweep(trials=1, seeds=1), config, folder)
    identity = check(sweep, folder)
    write_json(folder / "study.json", {"identity": identity})
    check(with_weights(sweep, config, folder), folder)
    weights(tmp_path / "weights", seed=1)
    with pytest.raises(UserError, match="begun with another configuration: weights: sha256 "):
        check(with_weights(sweep, config, folder), folder)
    del identity["weights"]
    write_json(folder / "study.json", {"identity": identity})
    before = synthetic.sweep(trials=1, seeds=1)
    assert caplog.messages == []
    check(with_weights(before, config, folder), folder)
    assert "whether they are the same cannot be told" in caplog.text
