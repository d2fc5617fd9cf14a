"""Exact match of short answers, for answers drawn from a closed vocabulary."""

from __future__ import annotations


def normalise(text: str) -> str:
    """Lower-case, outer white space and one final full stop off: " Red. " is "red"."""
    return text.strip().lower().removesuffix(".").rstrip()


def exact_match(prediction: str, reference: str) -> bool:
    """Whether two short answers are equal after `normalise`."""
    return normalise(prediction) == normalise(reference)
