"""CIDEr of captions, by pycocoevalcap's scorer on PTB tokens.

Source: Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation" (the variant CIDEr-D);
salaniz/pycocoevalcap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from himap.errors import UserError
from himap.metrics.tokenizer import MISSING_EXTRA, resolve, tokenize

# Papers print CIDEr times 100; the scorer's own scale goes to 10, for a caption equal to its only reference.
POINTS = 100.0


@dataclass(frozen=True)
class CiderScores:
    """CIDEr in points (x 100, at most 1000).

    An n-gram's weight depends on how many of the scored images use it: figures of a subset, or of another
    split, are not comparable with those of the whole, and one image alone scores 0.
    """

    corpus: float
    per_image: list[float]
    tokenizer: str


def _scorer() -> Any:
    try:
        from pycocoevalcap.cider.cider import Cider
    except ModuleNotFoundError as error:
        raise UserError(MISSING_EXTRA) from error
    return Cider()


def check(tokenizer: str) -> None:
    """Raise what `cider` would, before there are captions.

    Raises:
        UserError: the extra `caption` or Java is missing.
        ConfigError: unknown tokenizer.
    """
    resolve(tokenizer)
    _scorer()


def _tokenised_references(references: Sequence[Sequence[str]], tokenizer: str) -> list[list[str]]:
    flat = iter(tokenize([caption for captions in references for caption in captions], tokenizer))
    tokenised = [[next(flat) for _ in captions] for captions in references]
    if not any(caption for captions in tokenised for caption in captions):
        raise UserError("references: no caption holds a word (check the data's column of captions).")
    return tokenised


def _score(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Per-image points of tokenised captions."""
    given = {i: list(captions) for i, captions in enumerate(references)}
    _, scores = _scorer().compute_score(given, {i: [caption] for i, caption in enumerate(candidates)})
    return [float(score) * POINTS for score in scores]


def cider(
    candidates: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = "auto"
) -> CiderScores:
    """CIDEr of one caption an image against that image's references.

    Args:
        candidates: the model's captions, [N].
        references: each image's reference captions, [N] lists of at least one.
        tokenizer: `auto` (Java if it is there), `java` or `python`; the result says which was used.

    Raises:
        UserError: the extra `caption` or Java is missing, or no reference holds a word.
        ConfigError: unknown tokenizer.
        ValueError: no image, unequal lengths, an image without reference.
    """
    if not candidates or len(candidates) != len(references) or not all(references):
        raise ValueError(
            f"{len(candidates)} captions for {len(references)} images; one each, all with references"
        )
    used = resolve(tokenizer)
    scores = _score(tokenize(candidates, used), _tokenised_references(references, used))
    return CiderScores(corpus=fmean(scores), per_image=scores, tokenizer=used)


def leave_one_out(references: Sequence[Sequence[str]], tokenizer: str = "auto") -> CiderScores:
    """What the references score against each other: a ceiling of sorts for a model's CIDEr.

    Every image's first reference is scored against the image's others, then every second one, and so on up to
    the smallest number of references that an image has; the result is the mean over these rounds.

    Args:
        references: each image's reference captions, [N] lists of at least two.

    Raises:
        UserError, ConfigError: as `cider`.
        ValueError: no image, or an image with fewer than two references.
    """
    n_rounds = min(map(len, references), default=0)
    if n_rounds < 2:
        raise ValueError(f"an image has {n_rounds} references; leave_one_out needs at least two of each")
    used = resolve(tokenizer)
    tokenised = _tokenised_references(references, used)
    rounds = []
    for k in range(n_rounds):
        others = [captions[:k] + captions[k + 1 :] for captions in tokenised]
        rounds.append(_score([captions[k] for captions in tokenised], others))
    per_image = [fmean(scores) for scores in zip(*rounds, strict=True)]
    return CiderScores(corpus=fmean(per_image), per_image=per_image, tokenizer=used)
