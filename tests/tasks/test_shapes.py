"""The embedded tasks: balanced, disjoint, and scored as the families that they mirror."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from himap import tasks
from himap.config import TaskConfig
from himap.errors import ConfigError
from himap.shapes.drawing import draw
from himap.shapes.scene import sample_scene
from himap.tasks.shapes import N_SAMPLES, ShapesTask
from himap.training.data import TRAINING_STREAM

NAMES = ("shapes_short", "shapes_choice", "shapes_yesno", "shapes_caption")


def task(name: str, **settings: object) -> ShapesTask:
    return tasks.load(TaskConfig(**({"name": name, "adapter": name, "split": "search"} | settings)))


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_score_full_marks_and_wrong_ones_less(name: str) -> None:
    t = task(name, limit=120)
    samples = t.samples()
    right = [sample.answer if name != "shapes_caption" else sample.references[0] for sample in samples]
    full = t.score(samples, right)
    none = t.score(samples, ["unknown"] * len(samples))
    assert full.metrics[full.primary] > 100 * (1 - 1e-9) and none.metrics[none.primary] < 1
    assert np.mean(full.per_sample) * full.scale == pytest.approx(full.metrics[full.primary])


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_training_share_no_scene(name: str) -> None:
    pictures = {
        split: {np.asarray(s.images[0]()).tobytes() for s in task(name, split=split, limit=100).samples()}
        for split in ("search", "heldout")
    }
    rngs = (np.random.default_rng([TRAINING_STREAM, 1, 0, step]) for step in range(100))
    training = {draw(sample_scene(rng)).tobytes() for rng in rngs}
    assert not pictures["search"] & pictures["heldout"]
    assert not training & (pictures["search"] | pictures["heldout"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_split_has_all_its_samples(name: str) -> None:
    for split in ("search", "heldout"):
        samples = task(name, split=split).samples()
        assert len({sample.id for sample in samples}) == N_SAMPLES == 2000


@pytest.mark.parametrize("name", NAMES)
def test_several_questions_are_asked_about_one_picture(name: str) -> None:
    samples = task(name, limit=11, options={"questions": 4}).samples()
    pixels = [np.asarray(sample.images[0]()).tobytes() for sample in samples]
    pictures = [sample.picture for sample in samples]
    assert [pictures.index(one) for one in pictures] == [pixels.index(one) for one in pixels]
    assert [pictures.index(one) for one in pictures] == [0] * 4 + [4] * 4 + [8] * 3
    assert [sample.id for sample in samples] == [sample.id for sample in task(name, limit=11).samples()]
    assert len({sample.question for sample in samples[:4]}) > 1 or name == "shapes_caption"
    # One a picture is what each split has always been.
    single = task(name, limit=1).samples()[0]
    assert (single.question, np.asarray(single.images[0]()).tobytes()) == (samples[0].question, pixels[0])


def test_kinds_and_answers_are_balanced() -> None:
    short = Counter(sample.category for sample in task("shapes_short", limit=400).samples())
    assert short == dict.fromkeys(("colour", "shape", "count", "relation"), 100)
    letters = Counter(sample.answer for sample in task("shapes_choice", limit=400).samples())
    assert set(letters) == set("ABCD") and min(letters.values()) > 70
    yesno = Counter((s.category, s.answer) for s in task("shapes_yesno", limit=360).samples())
    assert set(yesno.values()) == {60} and len(yesno) == 6


def test_a_limit_takes_the_first_samples() -> None:
    assert [s.id for s in task("shapes_short", limit=5).samples()] == [f"search-{i:04d}" for i in range(5)]
    few, many = task("shapes_short", limit=5).samples(), task("shapes_short", limit=9).samples()
    assert [s.question for s in few] == [s.question for s in many[:5]]


def test_yes_to_everything_is_half_right_with_full_recall() -> None:
    t = task("shapes_yesno", limit=120)
    metrics = t.score(t.samples(), ["yes"] * 120).metrics
    assert metrics["accuracy"] == 50 and metrics["recall"] == 100 and metrics["yes_ratio"] == 100
    assert metrics["adversarial_accuracy"] == 50


def test_noise_replaces_every_picture() -> None:
    plain = task("shapes_short", limit=3).samples()
    noisy = task("shapes_short", limit=3, options={"image": "noise"}).samples()
    for a, b in zip(plain, noisy, strict=True):
        assert a.question == b.question
        assert np.asarray(b.images[0]()).std() > 70  # uniform noise: 73.6
        assert np.array_equal(b.images[0](), b.images[0]())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, "task.split=test"),
        ({"limit": 2001}, "task.limit=2001"),
        ({"options": {"image": "cat"}}, "task.options.image=cat"),
        ({"options": {"imgae": "noise"}}, "task.options=imgae"),
        ({"options": {"questions": 0}}, "task.options.questions=0"),
        ({"options": {"questions": "two"}}, "task.options.questions=two"),
    ],
)
def test_wrong_settings_name_their_key(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task("shapes_short", **settings)
