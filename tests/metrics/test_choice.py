"""What each multiple-choice parser reads out of ugly answers."""

from __future__ import annotations

import pytest

from himap.errors import ConfigError
from himap.metrics.choice import is_correct, parse_choice

ANSWERS = [
    "B",
    "B.",
    "B. red",
    "(B)",
    "(B) red",
    "b",
    "A or B",
    "The answer is B.",
    "The answer is B",
    "red",
    "",
]
READ = {
    #          B    B.    B. red (B) (B) red  b   A or B  The answer is B./B   red  ""
    "llava": ["B", None, "B", None, None, None, None, "B", None, None, None],
    "strict": ["B", None, None, None, None, None, None, None, None, None, None],
    "letter": ["B", "B", "B", "B", "B", None, "A", None, None, None, None],
    "lmms_eval": ["B", "B", "B", None, None, "B", None, None, None, None, None],
}
CASES = [
    pytest.param(parser, text, letter, id=f"{parser}-{text or 'empty'}")
    for parser, letters in READ.items()
    for text, letter in zip(ANSWERS, letters, strict=True)
]


@pytest.mark.parametrize(("parser", "text", "letter"), CASES)
def test_parser(parser: str, text: str, letter: str | None) -> None:
    assert parse_choice(text, 4, parser) == letter


@pytest.mark.parametrize("parser", ["llava", "strict", "letter", "lmms_eval"])
def test_a_letter_beyond_the_choices_is_no_answer(parser: str) -> None:
    assert parse_choice("D", 4, parser) == "D"
    assert parse_choice("D", 3, parser) is None


def test_llava_wants_exactly_one_sentence() -> None:
    assert parse_choice("The answer is B. No: The answer is C.", 4, "llava") is None


@pytest.mark.parametrize(("text", "letter"), [("B.red", "B"), ("B. or C.", "B"), ("b.", None), (" b ", "B")])
def test_lmms_eval_reads_a_capital_before_a_full_stop_and_a_bare_letter_in_any_case(
    text: str, letter: str | None
) -> None:
    assert parse_choice(text, 4, "lmms_eval") == letter


def test_fastv_finds_the_letter_anywhere() -> None:
    assert is_correct("A or B", "A", 4, "fastv")
    assert is_correct("A or B", "B", 4, "fastv")
    assert is_correct("Black", "B", 4, "fastv")
    assert not is_correct("b", "B", 4, "fastv")


def test_is_correct_compares_the_parsed_letter() -> None:
    assert is_correct("(B) red", "B", 4)
    assert not is_correct("A or B", "B", 4)
    assert not is_correct("red", "B", 4)


def test_unknown_parsers_and_answers_are_refused() -> None:
    with pytest.raises(ConfigError, match="parser=fast"):
        is_correct("B", "B", 4, "fast")
    with pytest.raises(ConfigError, match="parser=fastv"):
        parse_choice("B", 4, "fastv")
    with pytest.raises(ValueError, match="not one of the 2 choices"):
        is_correct("C", "C", 2)
