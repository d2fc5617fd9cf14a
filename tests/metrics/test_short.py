"""Exact match of short answers."""

from __future__ import annotations

import pytest

from himap.metrics.short import exact_match


@pytest.mark.parametrize("prediction", ["red", " Red ", "RED.", "red .", "red. "])
def test_case_space_and_a_final_stop_do_not_matter(prediction: str) -> None:
    assert exact_match(prediction, "red")


@pytest.mark.parametrize("prediction", ["", "reddish", "red..", "not red", "re d", "red!"])
def test_anything_else_does(prediction: str) -> None:
    assert not exact_match(prediction, "red")
