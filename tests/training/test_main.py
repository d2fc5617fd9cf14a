"""Training: a run that was cut in two equals one that was not, and writes a model that loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from himap.errors import UserError
from himap.training.config import PhaseConfig, TrainConfig
from himap.training.main import run

TINY = TrainConfig(
    tower=PhaseConfig(steps=3, images=2, learning_rate=0.01, other_learning_rate=1e-3),
    decoder=PhaseConfig(steps=3, images=2, learning_rate=0.01, other_learning_rate=1e-3),
    text_tokens=60,
    centre_layer=1,
    grounding_layer=2,
    judgement_layer=3,
    auxiliary_weight=0.5,
    seed=1,
    device="cpu",
    autocast=False,
    compile=False,
    threads=0,
    checkpoint_every=1,
    log_every=1,
)


class Stop(Exception):
    pass


def stop_at(phase: str, step: int) -> object:
    def progress(now: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if (now, done) == (phase, step):
            raise Stop

    return progress


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = run(TINY, tmp_path / "whole", lambda *_: None)
    for phase in ("tower", "decoder"):
        with pytest.raises(Stop):
            run(TINY, tmp_path / "cut", stop_at(phase, 2))
    cut = run(TINY, tmp_path / "cut", lambda *_: None)
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(TINY, tmp_path, stop_at("tower", 2))
    with pytest.raises(UserError, match=r"seed=2 \(was 1\)"):
        run(replace(TINY, seed=2), tmp_path, lambda *_: None)
