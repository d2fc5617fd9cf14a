"""VQA's soft accuracy over ten annotators, with the normalisations of VQAv2 and of TextVQA (M4C).

Source: Antol et al., "VQA: Visual Question Answering", section 3; GT-Vision-Lab/VQA (vqaEval.py) for VQAv2;
facebookresearch/mmf (EvalAIAnswerProcessor) for TextVQA. The table of contractions and number words beside
this file holds the constants that both share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Literal, NamedTuple, get_args

from himap.errors import ConfigError, UserError

Normalisation = Literal["official", "always", "m4c"]
NORMALISATIONS: tuple[str, ...] = get_args(Normalisation)

N_ANSWERS = 10
N_FULL_CREDIT = 3  # a prediction that three annotators gave is fully right

_DECIMAL_COMMA = re.compile(r"\d,\d")
# The official pattern looks behind with "(?!<=\d)", which holds nearly everywhere: so the period of "1." goes
# too, and only one that stands before a digit stays. Scores that people publish contain this.
_PERIOD = re.compile(r"(?!<=\d)\.(?!\d)")
_MAX_PERIODS = 32  # the official call passes re.UNICODE (= 32) where `count` belongs


class _Tables(NamedTuple):
    contractions: dict[str, str]
    number_map: dict[str, str]
    articles: frozenset[str]
    punctuations: tuple[str, ...]
    any_mark: re.Pattern[str]


@cache
def _tables() -> _Tables:
    text = resources.files("himap.metrics").joinpath("vqa_normalisation.json").read_text(encoding="utf-8")
    facts = json.loads(text)
    marks = tuple(facts["punctuations"])
    return _Tables(
        contractions=facts["contractions"],
        number_map=facts["number_map"],
        articles=frozenset(facts["articles"]),
        punctuations=marks,
        any_mark=re.compile("[" + re.escape("".join(marks)) + ".]"),
    )


def clean(text: str) -> str:
    """Line breaks and tabs to spaces, outer white space off: what every variant does first."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def process_punctuation(text: str) -> str:
    """Delete or blank 21 marks, then delete periods that no digit follows.

    A mark is deleted, not blanked, where it touches a space anywhere in the text or where the text has a
    decimal comma; both are asked of the text as it came in.
    """
    tables = _tables()
    if not tables.any_mark.search(text):
        return text
    has_decimal_comma = _DECIMAL_COMMA.search(text) is not None
    out = text
    for mark in tables.punctuations:
        if mark in text:
            touches_space = f"{mark} " in text or f" {mark}" in text
            out = out.replace(mark, "" if touches_space or has_decimal_comma else " ")
    return _PERIOD.sub("", out, count=_MAX_PERIODS)


def process_digit_article(text: str) -> str:
    """Lower-case, number words to digits (none and zero to 0), drop a/an/the, restore contractions."""
    tables = _tables()
    words = (tables.number_map.get(word, word) for word in text.lower().split())
    return " ".join(tables.contractions.get(word, word) for word in words if word not in tables.articles)


# Annotators repeat themselves: in VQAv2 most of the answers are a few thousand strings.
@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """VQAv2's official processor: clean, punctuation, digits and articles."""
    return process_digit_article(process_punctuation(clean(text)))


@lru_cache(maxsize=1 << 16)
def normalise_m4c(text: str) -> str:
    """M4C's processor: as `normalise`, but commas and question marks go first and "dog's" becomes "dog 's".

    LLaVA also passes its VQAv2 answers through this one before they are sent to the test server.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalise(text)


def agreement(n_matches: int, n_answers: int = N_ANSWERS) -> float:
    """Soft score of a prediction that `n_matches` of `n_answers` annotators gave, in [0, 1].

    The mean over annotators i of min(1, matches among the others / 3): each is left out in turn. Of ten
    annotators, 0/1/2/3/4 matches give 0/.3/.6/.9/1.
    """
    left_out_matched = n_matches * min(N_FULL_CREDIT, max(0, n_matches - 1))
    left_out_other = (n_answers - n_matches) * min(N_FULL_CREDIT, n_matches)
    return (left_out_matched + left_out_other) / (N_FULL_CREDIT * n_answers)


def soft_accuracy(prediction: str, answers: Sequence[str], normalisation: str = "official") -> float:
    """Soft accuracy of one prediction, in [0, 1].

    Args:
        prediction: the model's answer.
        answers: the ten annotators' answers, as released.
        normalisation: `official` normalises both sides only where the ten answers differ, as VQAv2's own
            script does. Where all ten agree it compares raw strings, so "Yes" misses ten times "yes": pass a
            model's free text through `normalise_m4c` first, as LLaVA does. `always` normalises both sides
            whatever the annotators say. `m4c` is TextVQA's: always, with M4C's processor.

    Raises:
        ConfigError: unknown normalisation.
        UserError: not ten answers.
    """
    if len(answers) != N_ANSWERS:
        raise UserError(
            f"answers={len(answers)}: VQA's soft accuracy needs exactly {N_ANSWERS} annotators' answers a "
            "question (check the data's column `answers`; test splits have none)."
        )
    if normalisation == "m4c":
        predicted, given = normalise_m4c(prediction), [normalise_m4c(answer) for answer in answers]
    elif normalisation == "always":
        predicted, given = normalise(prediction), [normalise(answer) for answer in answers]
    elif normalisation == "official":
        predicted, given = clean(prediction), [clean(answer) for answer in answers]
        if len(set(given)) > 1:
            predicted, given = normalise(predicted), [normalise(answer) for answer in given]
    else:
        names = ", ".join(NORMALISATIONS)
        raise ConfigError(f"normalisation={normalisation}: unknown; choose one of {names}.")
    return agreement(given.count(predicted))
