"""Every question is answered as the scene has it; checked against a second reading of the scene."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from himap.shapes import language
from himap.shapes.scene import SHAPES, Scene, Thing, sample_scene

SCENES = [sample_scene(np.random.default_rng([8, index])) for index in range(300)]


def rng(index: int) -> np.random.Generator:
    return np.random.default_rng([9, index])


def thing(name: str, scene: Scene) -> Thing:
    return next(thing for thing in scene.things if thing.name == name)


def test_colour_and_shape_name_the_only_match() -> None:
    for index, scene in enumerate(SCENES):
        if question := language.colour(scene, rng(index)):
            shape = re.fullmatch(r"what colour is the (\w+)\?", question.text)[1]
            assert [t.colour for t in scene.things if t.shape == shape] == [question.answer]
        if question := language.shape(scene, rng(index)):
            colour = re.fullmatch(r"what shape is the (\w+) object\?", question.text)[1]
            assert [t.shape for t in scene.things if t.colour == colour] == [question.answer]


def test_counts_are_right_and_of_all_sizes() -> None:
    seen: Counter[str] = Counter()
    singular = {language.plural(shape): shape for shape in SHAPES}
    for index, scene in enumerate(SCENES):
        question = language.count(scene, rng(index))
        what = re.fullmatch(r"how many (.+) are there\?", question.text)[1]
        if what in singular:
            n = sum(t.shape == singular[what] for t in scene.things)
        else:
            n = sum(t.colour == what.removesuffix(" objects") for t in scene.things)
        assert question.answer == language.NUMBERS[n]
        seen[question.answer] += 1
    assert min(seen[word] for word in ("zero", "one", "two")) > 20 and seen["three"] > 5


def test_relations_hold_by_a_clear_distance() -> None:
    answers = Counter()
    for index, scene in enumerate(SCENES):
        if (question := language.relation(scene, rng(index))) is None:
            continue
        found = re.fullmatch(
            r"is the (\w+ \w+) (\w+ or \w+) of the (\w+ \w+)\?", question.text
        ) or re.fullmatch(r"is the (\w+ \w+) (above or below) the (\w+ \w+)\?", question.text)
        a, b = thing(found[1], scene), thing(found[3], scene)
        if found[2] == "left or right":
            assert abs(a.x - b.x) >= 12 and question.answer == ("left" if a.x < b.x else "right")
        else:
            assert abs(a.y - b.y) >= 12 and question.answer == ("above" if a.y < b.y else "below")
        answers[question.answer] += 1
    assert min(answers.values()) > 0.15 * sum(answers.values()) and len(answers) == 4


@pytest.mark.parametrize(("category", "n_shared"), [("random", 0), ("popular", 1), ("adversarial", 2)])
def test_negatives_share_what_their_category_says(category: str, n_shared: int) -> None:
    n = 0
    for index, scene in enumerate(SCENES):
        question = language.existence(scene, rng(index), category, present=False)
        if question is None:
            continue
        n += 1
        colour, shape = re.fullmatch(r"is there an? (\w+) (\w+) in the picture\?", question.text).groups()
        shared = (colour in {t.colour for t in scene.things}) + (shape in {t.shape for t in scene.things})
        assert question.answer == "no" and shared == n_shared
        assert f"{colour} {shape}" not in {t.name for t in scene.things}
    assert n > 200


def test_the_letter_points_at_the_right_option() -> None:
    for index, scene in enumerate(SCENES):
        for ask in (language.colour, language.shape):
            plain, question = ask(scene, rng(index)), language.choice(scene, rng(index), ask)
            if question is not None:
                assert question.choices["ABCD".index(question.answer)] == plain.answer
                assert len(set(question.choices)) == 4


def test_captions_name_everything_in_the_order_they_say() -> None:
    scene = SCENES[3]
    across = [t.name for t in sorted(scene.things, key=lambda t: t.x)]
    down = [t.name for t in sorted(scene.things, key=lambda t: t.y)]
    references = language.captions(scene)
    assert len(set(references)) == 5
    for text in references:
        names = re.findall(r"an? (?:small |large )?(\w+ \w+)", text)
        assert names == (down if text.startswith("from top") else across)


def test_mentions_end_where_the_noun_ends() -> None:
    for index, scene in enumerate(SCENES[:50]):
        if question := language.relation(scene, rng(index)):
            for mention in question.mentions:
                assert question.text[: mention.end].endswith(scene.things[mention.thing].name)
