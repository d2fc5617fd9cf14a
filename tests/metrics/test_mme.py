"""MME's points, and what happens to images that have not two questions."""

from __future__ import annotations

import logging

import pytest

from himap.errors import ConfigError, UserError
from himap.metrics.mme import CATEGORIES, MmeAnswer, mme_scores, parse_mme


def pair(category: str, image: str, first: str, second: str) -> list[MmeAnswer]:
    """An image whose truths are Yes and No."""
    return [MmeAnswer(category, image, "Yes", first), MmeAnswer(category, image, "No", second)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"), ("yes, it is", "yes"), ("NO.", "no"), (" No", "no"), ("Not", "no"), ("a no", "no"),
        ("oh yes", None), ("I do not", None), ("", None), ("maybe", None),
    ],
)  # fmt: skip
def test_parser_reads_the_first_four_characters(text: str, expected: str | None) -> None:
    assert parse_mme(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("...yes", "yes"),
        ("y.e.s", "yes"),
        ("Y.", "yes"),
        ("n", "no"),
        ("y n", None),
        ("Yep", None),
        ("NO.", "no"),
    ],
)
def test_lmms_eval_overlooks_full_stops_and_takes_one_letter(text: str, expected: str | None) -> None:
    assert parse_mme(text, "lmms_eval") == expected
    scores = mme_scores(
        [MmeAnswer("count", "1", "Yes", text), MmeAnswer("count", "1", "No", text)], parser="lmms_eval"
    )
    assert scores.accuracy == (0.0 if expected is None else 0.5)


def test_all_right_gives_the_maxima() -> None:
    scores = mme_scores([item for category in CATEGORIES for item in pair(category, "1", "Yes", "No")])
    assert (scores.perception, scores.cognition, scores.total) == (2000.0, 800.0, 2800.0)
    assert (scores.accuracy, scores.missing, scores.excluded) == (1.0, (), ())


def test_category_is_question_accuracy_plus_pair_accuracy() -> None:
    # Image 1 both right, image 2 one right: 3 of 4 questions, 1 of 2 images.
    scores = mme_scores(pair("count", "1", "Yes", "No") + pair("count", "2", "Yes", "Yes"))
    count = scores.categories["count"]
    assert (count.accuracy, count.accuracy_plus, count.score, count.n_images) == (75.0, 50.0, 125.0, 2)
    assert scores.accuracy == 0.75


def test_the_same_image_name_in_two_categories_is_two_images() -> None:
    scores = mme_scores(pair("count", "1", "Yes", "No") + pair("color", "1", "Yes", "Yes"))
    assert scores.categories["count"].score == 200.0
    assert scores.categories["color"].score == 50.0


def test_sums_without_all_their_categories_are_not_given() -> None:
    scores = mme_scores(pair("count", "1", "Yes", "No"))
    assert scores.perception is scores.cognition is scores.total is None
    assert len(scores.missing) == 13


def test_an_unpaired_question_fails_or_is_left_out_loudly(caplog: pytest.LogCaptureFixture) -> None:
    answers = [*pair("count", "1", "Yes", "Yes"), MmeAnswer("count", "2", "Yes", "Yes")]
    with pytest.raises(UserError, match="first: count/2 with 1"):
        mme_scores(answers)
    with caplog.at_level(logging.WARNING):
        scores = mme_scores(answers, on_broken_pair="exclude")
    assert scores.excluded == ("count/2",)
    assert scores.categories["count"].accuracy == 50.0
    assert "count/2" in caplog.text


def test_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="category=colour"):
        mme_scores(pair("colour", "1", "Yes", "No"))
    with pytest.raises(UserError, match="must be Yes or No"):
        mme_scores([MmeAnswer("count", "1", "maybe", "Yes")])
    with pytest.raises(UserError, match="nothing can be scored"):
        mme_scores([])
    with pytest.raises(ConfigError, match="on_broken_pair=skip"):
        mme_scores([], on_broken_pair="skip")
    with pytest.raises(ConfigError, match="parser=otter: unknown"):
        parse_mme("yes", "otter")
