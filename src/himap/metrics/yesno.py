"""POPE and other yes/no questions: two parsers, five figures a split, their macro mean and the pooled ones.

Source: Li et al., "Evaluating Object Hallucination in Large Vision-Language Models"; RUCAIBox/POPE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Literal, get_args

from himap.errors import ConfigError

Parser = Literal["official", "exact"]
PARSERS: tuple[str, ...] = get_args(Parser)


@dataclass(frozen=True)
class YesNoScores:
    """Figures of one group of questions, "yes" the positive class; all but the counts in [0, 1].

    A precision, recall or F1 whose denominator is zero is 0. `yes_ratio` is the share of *predicted* yes.
    `n_unparsed` answers are neither yes nor no: wrong in the accuracy, and missed where the truth is yes.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float
    n: int
    n_unparsed: int


@dataclass(frozen=True)
class PopeScores:
    """`splits` by name, `macro` = mean over the splits of each figure, `micro` = all questions pooled."""

    splits: dict[str, YesNoScores]
    macro: YesNoScores
    micro: YesNoScores


def parse_official(text: str) -> str:
    """POPE's own rule: "no" if the first sentence holds the word No, no or not, else "yes".

    So "Yes, it is." and also "maybe" and "" are yes; "NO" is yes too.
    """
    words = text.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def parse_exact(text: str) -> str | None:
    """lmms-eval's rule: the bare word in any case; "Yes." is neither yes nor no."""
    word = text.strip().lower()
    return word if word in ("yes", "no") else None


def parse(text: str, parser: str = "official") -> str | None:
    """Read an answer as "yes", "no", or None if the parser finds neither.

    Raises:
        ConfigError: unknown parser.
    """
    if parser == "official":
        return parse_official(text)
    if parser == "exact":
        return parse_exact(text)
    raise ConfigError(f"parser={parser}: unknown; choose one of {', '.join(PARSERS)}.")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def yesno_scores(predicted: Sequence[str | None], answers: Sequence[str]) -> YesNoScores:
    """Accuracy, precision, recall, F1 and yes-ratio of parsed predictions.

    Args:
        predicted: "yes", "no" or None (unparsed), [N].
        answers: the truth, "yes" or "no", [N].

    Raises:
        ValueError: nothing to score, unequal lengths, or an answer that is neither yes nor no.
    """
    if not answers or len(predicted) != len(answers):
        raise ValueError(f"{len(predicted)} predictions for {len(answers)} answers; one each, at least one")
    if wrong := set(answers) - {"yes", "no"}:
        raise ValueError(f"answers must be yes or no, not {sorted(wrong)}")
    n = len(answers)
    pairs = list(zip(predicted, answers, strict=True))
    n_predicted_yes = sum(guess == "yes" for guess in predicted)
    true_positives = pairs.count(("yes", "yes"))
    precision = _share(true_positives, n_predicted_yes)
    recall = _share(true_positives, sum(answer == "yes" for answer in answers))
    return YesNoScores(
        accuracy=(true_positives + pairs.count(("no", "no"))) / n,
        precision=precision,
        recall=recall,
        f1=_share(2 * precision * recall, precision + recall),
        yes_ratio=n_predicted_yes / n,
        n=n,
        n_unparsed=sum(guess is None for guess in predicted),
    )


def _macro(splits: Sequence[YesNoScores]) -> YesNoScores:
    shares = [field.name for field in fields(YesNoScores) if not field.name.startswith("n")]
    means = {name: fmean(getattr(split, name) for split in splits) for name in shares}
    return YesNoScores(**means, n=sum(s.n for s in splits), n_unparsed=sum(s.n_unparsed for s in splits))


def pope_scores(
    texts: Sequence[str], answers: Sequence[str], splits: Sequence[str], parser: str = "official"
) -> PopeScores:
    """Score POPE's free-text answers per split, as macro mean and pooled.

    Args:
        texts: the model's answers, [N].
        answers: the truth, "yes" or "no", [N].
        splits: each question's split (adversarial, popular, random), [N].

    Raises:
        ConfigError: unknown parser.
        ValueError: as `yesno_scores`.
    """
    if len(splits) != len(answers):
        raise ValueError(f"{len(splits)} splits for {len(answers)} answers; one each")
    predicted = [parse(text, parser) for text in texts]
    micro = yesno_scores(predicted, answers)
    members: dict[str, list[int]] = {}
    for i, split in enumerate(splits):
        members.setdefault(split, []).append(i)
    by_split = {
        split: yesno_scores([predicted[i] for i in rows], [answers[i] for i in rows])
        for split, rows in sorted(members.items())
    }
    return PopeScores(splits=by_split, macro=_macro(list(by_split.values())), micro=micro)
