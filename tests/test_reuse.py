"""Inputs and image features are computed once, change no answer, and leave no trace on the model."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from himap import models, tasks
from himap.config import TaskConfig
from himap.config.compose import compose
from himap.config.schema import EvaluateConfig
from himap.evaluate import evaluate
from himap.models.base import Model
from himap.reuse import Reuse
from himap.strategy import Stage, Strategy

PLAIN = Strategy("none")
HIMAP = Strategy("himap", (Stage(2, 0.5, "img2txt"), Stage(8, 0.75, "img2img")))


@pytest.fixture(scope="module")
def model() -> Model:
    config = compose("evaluate", EvaluateConfig, ["model.weights=random"])
    return models.load(config.model, config.hardware)


@pytest.fixture
def task() -> tasks.Task:
    return tasks.load(TaskConfig("shapes_short", "shapes_short", "search", limit=12))


@pytest.fixture
def calls(model: Model, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the vision tower ran and prompts were encoded."""
    counter: Counter[str] = Counter()
    hook = model.hf.model.vision_tower.register_forward_hook(lambda *_: counter.update(["tower"]))
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda prompts: counter.update(["encode"]) or encode(prompts))
    yield counter
    hook.remove()


def texts(model: Model, task: tasks.Task, strategy: Strategy, reuse: Reuse | None) -> tuple[float, ...]:
    score: list[tuple[str, ...]] = []
    original = task.score
    task.score = lambda samples, answers: score.append(tuple(answers)) or original(samples, answers)
    evaluate(model, strategy, task, batch_size=4, reuse=reuse)
    task.score = original
    return score[0]


def test_a_second_strategy_pays_for_neither_images_nor_prompts(model: Model, task, calls) -> None:
    reuse = Reuse(100)
    evaluate(model, PLAIN, task, batch_size=4, reuse=reuse)
    assert calls == {"tower": 3, "encode": 3}
    evaluate(model, HIMAP, task, batch_size=4, reuse=reuse)
    assert calls == {"tower": 3, "encode": 3}


def test_answers_are_those_of_a_fresh_evaluation(model: Model, task) -> None:
    reuse = Reuse(100)
    for strategy in (HIMAP, PLAIN, HIMAP):
        assert texts(model, task, strategy, reuse) == texts(model, task, strategy, None)


def test_features_are_those_of_the_same_batch(model: Model, task) -> None:
    reuse = Reuse(100)
    one, two = task.samples()[:4], task.samples()[4:8]

    def make(batch):
        prompts = [task.prompt(sample, model.family) for sample in batch]
        return prompts, model.encode(prompts)

    with torch.inference_mode():
        for batch in (one, two):
            _, encoded = reuse.inputs(batch[0].id, lambda batch=batch: make(batch))
            expected = model.hf(**encoded).logits
            for _ in range(2):
                with reuse.attached(model.hf):
                    assert torch.equal(model.hf(**encoded).logits, expected)


def test_nothing_is_kept_beyond_the_limit(model: Model, task, calls) -> None:
    for limit in (0, 0.1):
        reuse = Reuse(limit)
        calls.clear()
        for _ in range(2):
            evaluate(model, PLAIN, task, batch_size=4, reuse=reuse)
        assert calls == {"tower": 6, "encode": 6}


def test_the_model_is_left_as_it_was(model: Model) -> None:
    before = dict(vars(model.hf.model))
    with pytest.raises(RuntimeError), Reuse(1).attached(model.hf):
        raise RuntimeError
    assert vars(model.hf.model).keys() == before.keys()
