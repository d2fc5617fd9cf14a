"""Facts of VQA's soft accuracy, worked by hand from its definition."""

from __future__ import annotations

import pytest

from himap.errors import ConfigError, UserError
from himap.metrics.vqa import agreement, normalise, normalise_m4c, soft_accuracy


@pytest.mark.parametrize(
    ("n_matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (7, 1.0), (10, 1.0)]
)
def test_match_count_law(n_matches: int, score: float) -> None:
    answers = ["red"] * n_matches + [f"other {i}" for i in range(10 - n_matches)]
    assert soft_accuracy("red", answers) == score


@pytest.mark.parametrize("n_matches", range(11))
def test_agreement_is_the_mean_over_annotators_left_out(n_matches: int) -> None:
    given = [True] * n_matches + [False] * (10 - n_matches)
    left_out = [min(1, (n_matches - was_match) / 3) for was_match in given]
    assert agreement(n_matches) == pytest.approx(sum(left_out) / 10, abs=1e-15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Dog", "dog"),
        (" two\tdogs\n", "2 dogs"),
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("an apple and a pear", "apple and pear"),
        ("dont know", "don't know"),
        ("isnt", "isn't"),
        ("dog's", "dog's"),
        # A mark between words becomes a space, one that touches a space anywhere goes.
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("x-b, c-d", "x b c d"),
        ("x/-b-c", "x b c"),  # asked of the text as it came in: no mark touches a space there
        ("a-b - c-d", "ab cd"),
        ("yes!", "yes"),
        ('"stop"', "stop"),
        # A decimal comma anywhere makes every mark of the text go.
        ("1,000", "1000"),
        ("1,000 black-white", "1000 blackwhite"),
        ("red,white", "red white"),
        # Periods go unless a digit follows: also the one after a digit.
        ("1.", "1"),
        ("1.5", "1.5"),
        ("st. john", "st john"),
        (".5", ".5"),
        ("p.m.", "pm"),
        ("a", ""),
        ("", ""),
    ],
)
def test_official_normalisation(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_official_deletes_at_most_32_periods() -> None:
    assert normalise("." * 40) == "." * 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog's", "dog 's"),
        ("Dog's, tail?", "dog 's tail"),
        ("1,000", "1000"),
        ("black-white, red", "black white red"),
    ],
)
def test_m4c_normalisation(text: str, expected: str) -> None:
    assert normalise_m4c(text) == expected


def test_official_leaves_unanimous_answers_raw() -> None:
    assert soft_accuracy("the dog", ["dog"] * 10, "official") == 0.0
    assert soft_accuracy("the dog", ["dog"] * 10, "always") == 1.0
    assert soft_accuracy("Yes", ["yes"] * 10, "official") == 0.0
    assert soft_accuracy(" yes\n", ["yes"] * 10, "official") == 1.0


def test_official_normalises_both_sides_where_answers_differ() -> None:
    answers = ["A dog"] * 3 + ["dog."] * 2 + ["cat"] * 5
    assert soft_accuracy("The Dog", answers, "official") == 1.0
    assert soft_accuracy("cat", answers, "official") == 1.0


def test_m4c_splits_a_genitive_and_vqav2_does_not() -> None:
    answers = ["joe 's", "x"] + ["joe 's bar"] * 8
    assert soft_accuracy("joe's bar", answers, "m4c") == 1.0
    assert soft_accuracy("joe's bar", answers, "always") == 0.0


def test_wrong_number_of_annotators_and_unknown_normalisation_are_refused() -> None:
    with pytest.raises(UserError, match="answers=9"):
        soft_accuracy("x", ["x"] * 9)
    with pytest.raises(ConfigError, match="normalisation=oficial"):
        soft_accuracy("x", ["x"] * 10, "oficial")
