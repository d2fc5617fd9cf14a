"""POPE's parsers and figures on a confusion table small enough to count by hand."""

from __future__ import annotations

import pytest

from himap.errors import ConfigError
from himap.metrics.yesno import parse, pope_scores, yesno_scores


@pytest.mark.parametrize(
    ("text", "official", "exact"),
    [
        ("Yes", "yes", "yes"),
        ("no", "no", "no"),
        ("No.", "no", None),
        ("Yes.", "yes", None),
        ("Yes, there is no doubt", "no", None),
        ("No, there is a dog", "no", None),
        ("There is not. Yes", "no", None),
        ("Yes. No", "yes", None),
        ("NO", "yes", "no"),
        ("not,", "no", None),
        ("nothing", "yes", None),
        ("maybe", "yes", None),
        ("", "yes", None),
    ],
)
def test_parsers(text: str, official: str, exact: str | None) -> None:
    assert parse(text, "official") == official
    assert parse(text, "exact") == exact


def test_figures_of_a_table_counted_by_hand() -> None:
    # 3 true positives, 1 false positive, 4 true negatives, 2 misses.
    predicted = ["yes"] * 3 + ["yes"] + ["no"] * 4 + ["no"] * 2
    answers = ["yes"] * 3 + ["no"] + ["no"] * 4 + ["yes"] * 2
    scores = yesno_scores(predicted, answers)
    assert (scores.accuracy, scores.precision, scores.recall) == (0.7, 0.75, 0.6)
    assert scores.f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert scores.yes_ratio == 0.4  # predicted; the truth's is 0.5
    assert (scores.n, scores.n_unparsed) == (10, 0)


def test_an_unparsed_answer_is_wrong_and_missed() -> None:
    scores = yesno_scores([None, "yes", None], ["yes", "yes", "no"])
    assert scores.accuracy == pytest.approx(1 / 3)
    assert (scores.recall, scores.n_unparsed) == (0.5, 2)


def test_zero_denominators_give_zero() -> None:
    scores = yesno_scores(["no", "no"], ["no", "no"])
    assert (scores.accuracy, scores.precision, scores.recall, scores.f1) == (1.0, 0.0, 0.0, 0.0)


def test_macro_is_the_mean_over_splits_and_micro_pools() -> None:
    texts = ["Yes", "No", "No", "No"]
    answers = ["yes", "no", "yes", "yes"]
    scores = pope_scores(texts, answers, ["random", "random", "random", "popular"])
    assert scores.splits["random"].accuracy == pytest.approx(2 / 3)
    assert scores.splits["popular"].accuracy == 0.0
    assert scores.macro.accuracy == pytest.approx(1 / 3)
    assert scores.micro.accuracy == 0.5
    assert scores.macro.n == scores.micro.n == 4


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="parser=strict"):
        parse("yes", "strict")
    with pytest.raises(ValueError, match="must be yes or no"):
        yesno_scores(["yes"], ["Yes"])
    with pytest.raises(ValueError, match="1 predictions for 2 answers"):
        yesno_scores(["yes"], ["yes", "no"])
    with pytest.raises(ValueError, match="1 splits"):
        pope_scores(["Yes", "No"], ["yes", "no"], ["random"])
