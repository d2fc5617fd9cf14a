"""The shipped model looks at its picture, and pruning hurts it as it should; small samples, wide margins."""

from __future__ import annotations

from pathlib import Path

import pytest

from himap import models, tasks
from himap.config import TaskConfig
from himap.config.compose import compose
from himap.config.schema import EvaluateConfig
from himap.evaluate import evaluate
from himap.files import read_jsonl
from himap.models.base import Model
from himap.models.shapes import WEIGHTS
from himap.strategy import Stage, Strategy
from himap.training.config import TrainConfig

PLAIN = Strategy("none")


@pytest.fixture(scope="module")
def model() -> Model:
    config = compose("evaluate", EvaluateConfig)
    return models.load(config.model, config.hardware)


def accuracy(model: Model, task: str, strategy: Strategy = PLAIN, image: str = "scene") -> float:
    settings = TaskConfig(task, task, "heldout", limit=96, options={"image": image})
    return evaluate(model, strategy, tasks.load(settings), batch_size=32).primary


def dropping(layer: int, criterion: str) -> Strategy:
    return Strategy(criterion, (Stage(layer, 0.9, criterion),))


@pytest.mark.parametrize("task", ["shapes_short", "shapes_choice", "shapes_yesno"])
def test_it_answers(model: Model, task: str) -> None:
    assert accuracy(model, task) >= 90


@pytest.mark.parametrize(
    ("task", "most"), [("shapes_short", 45), ("shapes_choice", 45), ("shapes_yesno", 65)]
)
def test_it_does_not_answer_without_looking(model: Model, task: str, most: float) -> None:
    assert accuracy(model, task, image="noise") <= most


def test_early_pruning_costs_accuracy(model: Model) -> None:
    plain = accuracy(model, "shapes_short")
    assert accuracy(model, "shapes_short", dropping(1, "img2txt")) < plain - 15


def test_the_instruction_knows_better_than_chance_what_to_keep(model: Model) -> None:
    by_text, by_chance = (accuracy(model, "shapes_yesno", dropping(2, c)) for c in ("img2txt", "random"))
    assert by_text > by_chance + 5


def test_the_recipe_of_the_weights_is_the_configured_one() -> None:
    import json

    shipped = json.loads((WEIGHTS / "training.json").read_text())["recipe"]
    assert shipped == compose("train", TrainConfig).recipe()


def test_the_log_covers_both_phases_and_the_weights_are_small() -> None:
    log = list(read_jsonl(WEIGHTS / "training_log.jsonl"))
    assert {row["phase"]: row["step"] for row in log} == {"tower": 2000, "decoder": 2200}
    assert (WEIGHTS / "model.safetensors").stat().st_size < 12e6
    assert not list(Path(WEIGHTS).glob("*.pt"))
