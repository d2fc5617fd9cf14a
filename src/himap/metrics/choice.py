"""Multiple choice by letter: which option an answer names, under each of the common evaluators' rules."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Literal, get_args

from himap.errors import ConfigError

Parser = Literal["llava", "strict", "letter", "lmms_eval", "fastv"]
PARSERS: tuple[str, ...] = get_args(Parser)

_LLAVA_LETTERS = frozenset("ABCDE")
# The last dot is LLaVA's own: unescaped, it wants any one character after the letter.
_LLAVA_SENTENCE = re.compile(r"The answer is ([A-Z]).")
_LEADING_LETTER = re.compile(r"\(?([A-Z])\b")


def parse_llava(text: str) -> str | None:
    """ScienceQA as LLaVA reads it: "B", or "B. ...", or exactly one "The answer is B." in the text.

    Source: haotian-liu/LLaVA, eval_science_qa.py.
    """
    if text[:1] in _LLAVA_LETTERS and (len(text) == 1 or text[1:3] == ". "):
        return text[0]
    found = _LLAVA_SENTENCE.findall(text)
    return found[0] if len(found) == 1 else None


def parse_strict(text: str) -> str | None:
    """The bare capital letter and nothing else, as HiMAP's ScienceQA script asks for."""
    return text if len(text) == 1 and text in string.ascii_uppercase else None


def parse_letter(text: str) -> str | None:
    """The capital letter that the answer begins with, in brackets or not: "B", "(B) red", "B: red".

    The first letter wins ("A or B" is A). An article reads as a letter ("A dog" is A).
    """
    match = _LEADING_LETTER.match(text.strip())
    return match[1] if match else None


def parse_lmms_eval(text: str) -> str | None:
    """ScienceQA as lmms-eval reads it: the bare letter in any case, or a capital before a full stop.

    So "b", "B.", "B.red" and "B. or C." are B. Source: EvolvingLMMs-Lab/lmms-eval 0.7.3, tasks/scienceqa.
    """
    text = text.strip()
    if len(text) == 1:
        return text.upper()
    return text[0] if text[1:2] == "." else None


_PARSE: dict[str, Callable[[str], str | None]] = {
    "llava": parse_llava,
    "strict": parse_strict,
    "letter": parse_letter,
    "lmms_eval": parse_lmms_eval,
}


def choice_letters(n_choices: int) -> str:
    """The letters of `n_choices` options: 4 gives "ABCD"."""
    return string.ascii_uppercase[:n_choices]


def parse_choice(text: str, n_choices: int, parser: str = "letter") -> str | None:
    """The letter that `text` names among the first `n_choices`, or None if it names none of them.

    Raises:
        ConfigError: unknown parser, or `fastv`, which needs the right letter and so cannot parse.
    """
    if parser not in _PARSE:
        raise ConfigError(f"parser={parser}: cannot name a letter; choose one of {', '.join(_PARSE)}.")
    letter = _PARSE[parser](text)
    return letter if letter is not None and letter in choice_letters(n_choices) else None


def is_correct(text: str, answer: str, n_choices: int, parser: str = "letter") -> bool:
    """Whether `text` names the right letter `answer`.

    `fastv` (FastV's inference_aokvqa.py) looks whether the letter occurs anywhere in the text, so "A or B" is
    right for A and for B; its one-token answers keep that rare.

    Raises:
        ConfigError: unknown parser.
        ValueError: `answer` is not one of the choices' letters.
    """
    letters = choice_letters(n_choices)
    if len(answer) != 1 or answer not in letters:
        raise ValueError(f"answer={answer!r}: not one of the {n_choices} choices' letters {letters}")
    if parser == "fastv":
        return answer in text
    if parser not in _PARSE:
        raise ConfigError(f"parser={parser}: unknown; choose one of {', '.join(PARSERS)}.")
    return parse_choice(text, n_choices, parser) == answer
