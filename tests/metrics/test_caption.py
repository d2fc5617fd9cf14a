"""CIDEr worked by hand, and the references against each other."""

from __future__ import annotations

import builtins
from math import exp, log, sqrt
from typing import Any

import pytest

from himap.errors import UserError
from himap.metrics.caption import cider, leave_one_out

pytest.importorskip("pycocoevalcap")


def test_a_caption_equal_to_its_only_reference_scores_1000() -> None:
    captions = ["A red square near a circle.", "Two blue rings lie below it."]
    scores = cider(captions, [[caption] for caption in captions], "python")
    assert scores.per_image == pytest.approx([1000.0, 1000.0])
    assert scores.corpus == pytest.approx(1000.0)
    assert scores.tokenizer == "python"


def test_by_hand_from_the_definition() -> None:
    # Two images, one reference each; no n-gram is shared between the images, so every weight is tf * ln 2.
    scores = cider(["red dog", "x y z"], [["red cat runs"], ["blue bird"]], "python")
    # Unigrams: 1 of 2 match 1 of 3; bigrams: 0; the lengths differ by one bigram.
    penalty = exp(-1 / (2 * 6**2))
    one = 1 / (sqrt(2) * sqrt(3)) * penalty
    assert scores.per_image == pytest.approx([100 * 10 * one / 4, 0.0])


def test_an_ngram_that_every_image_has_weighs_nothing() -> None:
    # "the" is in both images' references: ln(2) - ln(2) = 0.
    scores = cider(["the", "bird"], [["the dog"], ["the bird"]], "python")
    assert scores.per_image[0] == 0.0
    assert scores.per_image[1] == pytest.approx(100 * 10 * 1 / 4 * exp(-1 / 72))
    assert log(2) - log(2) == 0


def test_case_and_punctuation_do_not_matter() -> None:
    references = [["a red dog runs", "dogs run"], ["a blue bird", "birds fly"]]
    plain = cider(["red dog", "blue bird"], references, "python")
    dressed = cider(["Red dog.", '"Blue", bird!'], references, "python")
    assert dressed == plain


def test_a_line_separator_shifts_no_caption() -> None:
    references = [["a red dog runs"], ["a blue bird sings"], ["two cats"]]
    plain = cider(["a red dog", "a blue bird", "cats"], references, "python")
    assert cider(["a red\u2028dog", "a blue\x0bbird", "cats\r"], references, "python") == plain


def test_one_image_alone_scores_zero() -> None:
    assert cider(["a dog"], [["a dog"]], "python").corpus == 0.0


def test_leave_one_out_is_the_mean_over_rounds() -> None:
    references = [["a red dog", "a red cat", "one dog"], ["two birds fly", "two birds", "birds fly up"]]
    rounds = [
        cider(
            [captions[k] for captions in references],
            [captions[:k] + captions[k + 1 :] for captions in references],
            "python",
        )
        for k in range(3)
    ]
    scores = leave_one_out(references, "python")
    assert scores.corpus == pytest.approx(sum(one.corpus for one in rounds) / 3)
    assert scores.per_image[1] == pytest.approx(sum(one.per_image[1] for one in rounds) / 3)


def test_leave_one_out_of_equal_references_is_the_maximum() -> None:
    assert leave_one_out(
        [["a red dog here"] * 3, ["two blue birds fly"] * 2], "python"
    ).corpus == pytest.approx(1000)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        cider(["a"], [["a"], ["b"]], "python")
    with pytest.raises(ValueError, match="all with references"):
        cider(["a", "b"], [["a"], []], "python")
    with pytest.raises(UserError, match="no caption holds a word"):
        cider(["a", "b"], [["."], ["!"]], "python")
    with pytest.raises(ValueError, match="at least two"):
        leave_one_out([["a"], ["b", "c"]], "python")


def test_a_missing_extra_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fake(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pycocoevalcap"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    with pytest.raises(UserError, match=r"himap\[caption\]"):
        cider(["a", "b"], [["a"], ["b"]], "python")
