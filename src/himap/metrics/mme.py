"""MME: two yes/no questions an image, 14 categories, perception (max 2000) and cognition (max 800).

Source: Fu et al., "MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models"; the
release's calculation.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from himap.errors import ConfigError, UserError
from himap.rules import one_of

Parser = Literal["official", "lmms_eval"]
PARSERS: tuple[str, ...] = get_args(Parser)

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
CATEGORIES = PERCEPTION + COGNITION
QUESTIONS_PER_IMAGE = 2

_logger = logging.getLogger(__name__)


class MmeAnswer(NamedTuple):
    """One question: category, the image's id (unique within the category), the truth, the model's text."""

    category: str
    image: str
    answer: str
    text: str


@dataclass(frozen=True)
class CategoryScore:
    """`accuracy` = 100 x share of questions right; `accuracy_plus` = that of images with both right."""

    accuracy: float
    accuracy_plus: float
    n_images: int

    @property
    def score(self) -> float:
        """accuracy + accuracy_plus, at most 200."""
        return self.accuracy + self.accuracy_plus


@dataclass(frozen=True)
class MmeScores:
    """MME's points; a sum is None where one of its categories has no question (a limited run).

    Attributes:
        categories: by name, those present.
        perception: sum over 10 categories, at most 2000.
        cognition: sum over 4 categories, at most 800.
        total: both, at most 2800 (the HiMAP paper's figure).
        accuracy: share of all questions right, in [0, 1]; defined for any subset.
        missing: categories without a question.
        excluded: "category/image" of the images left out because they had not exactly two questions.
    """

    categories: dict[str, CategoryScore]
    perception: float | None
    cognition: float | None
    total: float | None
    accuracy: float
    missing: tuple[str, ...]
    excluded: tuple[str, ...]


def parse_mme(text: str, parser: str = "official") -> str | None:
    """Find "yes" or "no" in the first four characters, in any case; None (counted wrong) without either.

    Args:
        parser: `lmms_eval` overlooks full stops ("...yes") and takes a lone "y" or "n" as well
            (EvolvingLMMs-Lab/lmms-eval 0.7.3, tasks/mme).

    Raises:
        ConfigError: unknown parser.
    """
    one_of("parser", parser, PARSERS)
    start = text.strip().lower()
    if parser == "lmms_eval":
        start = start.replace(".", "")
        start = {"y": "yes", "n": "no"}.get(start, start)
    start = start[:4]
    if "yes" in start:
        return "yes"
    return "no" if "no" in start else None


def _pairs(answers: Iterable[MmeAnswer], parser: str) -> dict[tuple[str, str], list[bool]]:
    right: dict[tuple[str, str], list[bool]] = {}
    for item in answers:
        if item.category not in CATEGORIES:
            raise UserError(f"category={item.category}: not one of MME's; known are {', '.join(CATEGORIES)}.")
        truth = item.answer.strip().lower()
        if truth not in ("yes", "no"):
            raise UserError(f"answer={item.answer!r} of {item.category}/{item.image}: must be Yes or No.")
        right.setdefault((item.category, item.image), []).append(parse_mme(item.text, parser) == truth)
    return right


def _category_score(images: list[list[bool]]) -> CategoryScore:
    n = len(images)
    n_questions_right, n_images_right = sum(map(sum, images)), sum(map(all, images))
    return CategoryScore(100 * n_questions_right / (QUESTIONS_PER_IMAGE * n), 100 * n_images_right / n, n)


def _total(scores: dict[str, CategoryScore], names: tuple[str, ...]) -> float | None:
    return sum(scores[name].score for name in names) if all(name in scores for name in names) else None


def mme_scores(
    answers: Iterable[MmeAnswer], on_broken_pair: str = "fail", parser: str = "official"
) -> MmeScores:
    """Score MME's free-text answers.

    Args:
        on_broken_pair: an image without exactly two questions (a failed sample, a limit by question) would
            bend accuracy_plus; `fail` raises, `exclude` leaves it out, warns and names it in the result.
        parser: of the texts, as in `parse_mme`.

    Raises:
        UserError: a broken pair under `fail`, an unknown category, a truth that is not yes/no, nothing left.
        ConfigError: unknown `on_broken_pair` or parser.
    """
    if on_broken_pair not in ("fail", "exclude"):
        raise ConfigError(f"on_broken_pair={on_broken_pair}: unknown; choose one of fail, exclude.")
    right = _pairs(answers, parser)
    broken = {key: len(items) for key, items in right.items() if len(items) != QUESTIONS_PER_IMAGE}
    names = tuple(f"{category}/{image}" for category, image in broken)
    if broken and on_broken_pair == "fail":
        raise UserError(
            f"MME: {len(broken)} images have not exactly {QUESTIONS_PER_IMAGE} questions (first: {names[0]} "
            f"with {next(iter(broken.values()))}); limit by image pair, or set on_broken_pair=exclude."
        )
    if broken:
        _logger.warning(
            "MME: %d images without two questions are left out: %s", len(broken), ", ".join(names)
        )
    whole = {key: items for key, items in right.items() if key not in broken}
    if not whole:
        raise UserError("MME: no image with exactly two questions; nothing can be scored.")
    by_category: dict[str, list[list[bool]]] = {}
    for (category, _), items in whole.items():
        by_category.setdefault(category, []).append(items)
    scores = {name: _category_score(by_category[name]) for name in CATEGORIES if name in by_category}
    perception, cognition = _total(scores, PERCEPTION), _total(scores, COGNITION)
    return MmeScores(
        categories=scores,
        perception=perception,
        cognition=cognition,
        total=perception + cognition if perception is not None and cognition is not None else None,
        accuracy=sum(map(sum, whole.values())) / (QUESTIONS_PER_IMAGE * len(whole)),
        missing=tuple(category for category in CATEGORIES if category not in scores),
        excluded=names,
    )
