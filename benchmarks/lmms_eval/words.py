"""The ugly words of the made data: how annotators and models spell, say yes, name a letter, and caption."""

from __future__ import annotations

import json
import random
from importlib import resources

N_ANSWERS = 10

WORDS = ("dog", "cat", "red", "bus stop", "tennis", "yes", "no", "2", "ten", "none", "o'clock", "Ü-bahn")
# What annotators and models do to a word; the last ones stand alone.
_SPELLINGS = (
    "{}", "{}", "{}", "the {}", "A {}", "an {}.", "{}!", "{}?", "{}'s", "{},", "{}, {}", "{} , {}", "{}/{}",
    "{} - {}", "two {}s", "TEN {}", "1,000 {}", "3.5 {}", "{}\n", " {}\t{}", '"{}"', "({})", "{}; {}", "@{}",
    "{}_{}", "{}...", "{} a", ".5", "1.", "no. 5", "10:30 a.m.", "$1,234.50", "zero", "the", "",
)  # fmt: skip

_YES_NO = (
    "Yes", "No", "yes", "no", "Yes", "No", "Yes, there is.", "No, there is not.", "Yes.", "no.", "Y", "n",
    "YES!", "NO", "The answer is yes", "not at all", "Nope", "It's no", "*Yes*", "y.e.s", "", "none", "maybe",
    "I know", "...yes", "Yes\n\nThere is a dog.", "1. No", "Yes and no", "there is no dog. Yes", " Yes ",
)  # fmt: skip

_LETTERS = (
    "{0}", "{0}", "{0}", "{1}", "{0}.", "{0}. {word}", "{1}. {word}", "({0})", "{0}) {word}", "{0} or {1}",
    "The answer is {0}.", "The answer is {0}. The answer is {1}.", "{0}: {word}", "{0}.{word}", "answer: {0}",
    "F", "AB", "", "{word}", "{lower}", "{lower}.", "{0}\n{1}", "{0}. or {1}.", " {0}", "**{0}**",
)  # fmt: skip

_SUBJECTS = (
    "a man", "two dogs", "the girl's cat", "an old-fashioned bus", "people", "A child (left)", "no one",
)  # fmt: skip
_VERBS = (
    "is riding", "don't look at", "stands near", "plays with", "can't see", "is looking @", "jumps over",
)  # fmt: skip
_OBJECTS = (
    "a red ball", "the stop sign", "22 3/4 apples", "1,000 birds", 'a "no parking" sign', "the U.S. flag",
    "a café", "St. Mary's church", "skis/poles", "some half-eaten pizza", "it", "3.5 metres of rope",
    "a 7:30 p.m. train",
)  # fmt: skip
_ENDS = (
    ".", "", "!", " .", "...", "?!", ", etc.", ";", "\n", " on the grass.", " in the snow", "  ",
    " -- maybe.",
)  # fmt: skip


def spelt(draw: random.Random, word: str) -> str:
    return draw.choice(_SPELLINGS).format(word, draw.choice(WORDS))


def annotated(draw: random.Random) -> tuple[list[str], str]:
    """Ten answers in one to four spellings, or all alike; and the model's, often one of them."""
    pool = [spelt(draw, draw.choice(WORDS)) or "nothing" for _ in range(draw.randint(1, 4))]
    given = pool[:1] * N_ANSWERS if draw.random() < 0.25 else draw.choices(pool, k=N_ANSWERS)
    answer = draw.choice(given) if draw.random() < 0.8 else spelt(draw, draw.choice(WORDS))
    respelt = draw.choice(("{}", "{}", "{}", "the {}", "{}.", "{}\n", " {} "))
    return given, draw.choice((str, str.upper, str.capitalize))(respelt.format(answer))


def contractions(draw: random.Random) -> list[tuple[list[str], str]]:
    """Answers of each contraction that the metric knows, with its apostrophe and without."""
    text = resources.files("himap.metrics").joinpath("vqa_normalisation.json").read_text(encoding="utf-8")
    pairs = json.loads(text)["contractions"].items()
    return [
        (draw.choices([bare, whole, f"{whole}."], k=N_ANSWERS), draw.choice((bare, whole)))
        for bare, whole in pairs
    ]


def yes_no(draw: random.Random, truth: str) -> str:
    """The truth in two of three questions, otherwise anything."""
    return truth if draw.random() < 2 / 3 else draw.choice(_YES_NO)


def letter(draw: random.Random, right: str, other: str, word: str) -> str:
    """A letter in some form."""
    return draw.choice(_LETTERS).format(right, other, word=word, lower=right.lower())


def caption(draw: random.Random) -> str:
    words = [draw.choice(_SUBJECTS), draw.choice(_VERBS), draw.choice(_OBJECTS)]
    return " ".join(words) + draw.choice(_ENDS)


def described(draw: random.Random, references: list[str]) -> str:
    """A reference, as it is or with one part changed; another caption altogether; or nothing."""
    given = draw.choice(references)
    return draw.choice((given, given.replace("a ", "the "), given.upper(), caption(draw), caption(draw), ""))
