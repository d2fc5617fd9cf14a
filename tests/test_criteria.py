from __future__ import annotations

import pytest
import torch
from torch import Tensor

from himap import criteria
from himap.criteria import FixedCriterion, RowCriterion
from himap.errors import ConfigError
from himap.layout import Layout
from himap.strategy import CRITERIA

IMG = 9


def layout_of(*prompts: list[int]) -> Layout:
    """A left-padded batch."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return Layout.from_ids(ids, [IMG], mask)


def best(name: str, layout: Layout, k: int, sample: int = 0, seed: int = 0) -> list[int]:
    """Ordinals of the k best image tokens of a sample."""
    criterion = criteria.get(name)
    assert isinstance(criterion, FixedCriterion)
    scores: Tensor = criterion.scores(layout, seed)[sample][layout.image[sample]]
    return sorted(scores.argsort(descending=True, stable=True)[:k].tolist())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("img2txt", [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1]]),
        ("img2img", [[0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 0]]),
        ("all2img", [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]),
        ("last2img", [[0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1]]),
    ],
)
def test_rows_of(name: str, expected: list[list[int]]) -> None:
    layout = layout_of([1, 2, IMG, IMG, IMG, 3, 4], [1, IMG, IMG, 3])
    criterion = criteria.get(name)
    assert isinstance(criterion, RowCriterion)
    rows = criterion.rows(layout)
    assert rows.int().tolist() == expected
    assert [criterion.n_rows(count) for count in layout.counts] == rows.sum(-1).tolist()


def test_every_name_of_the_configuration_has_a_criterion_of_that_name() -> None:
    assert [criteria.get(name).name for name in CRITERIA] == list(CRITERIA)


def test_an_unknown_name_is_answered_with_the_list() -> None:
    with pytest.raises(ConfigError, match="criterion=img2tex: unknown; choose one of img2txt"):
        criteria.get("img2tex")


def test_random_is_a_property_of_prompt_and_seed_not_of_the_batch() -> None:
    prompt, other = [1] + [IMG] * 64 + [2, 3], [1, 1, 1] + [IMG] * 64 + [2, 4, 5]
    alone, batch = layout_of(prompt), layout_of(other, prompt)
    assert best("random", alone, 16) == best("random", batch, 16, sample=1)
    assert best("random", batch, 16, sample=0) != best("random", batch, 16, sample=1)
    assert best("random", alone, 16, seed=0) != best("random", alone, 16, seed=1)


def test_random_gives_every_token_the_same_chance() -> None:
    layout = layout_of([1] + [IMG] * 16 + [2])
    times = torch.zeros(16)
    for seed in range(400):
        times[best("random", layout, 4, seed=seed)] += 1
    # 100 expected each with a standard deviation of 8.7; five of them are never met by chance here.
    assert times.min() > 56 and times.max() < 144


@pytest.mark.parametrize("k", [4, 9, 18, 36, 72])
def test_uniform_fills_the_four_quarters_of_a_picture_alike(k: int) -> None:
    side = 12
    chosen = best("uniform", layout_of([1] + [IMG] * side * side + [2]), k)
    quarters = [0] * 4
    for place in chosen:
        quarters[(place // side >= side // 2) * 2 + (place % side >= side // 2)] += 1
    assert len(set(chosen)) == k
    assert max(quarters) - min(quarters) <= max(1, k // 8), quarters


def test_uniform_spreads_a_run_that_is_no_square_and_shares_between_pictures() -> None:
    layout = layout_of([1] + [IMG] * 8 + [2], [1] + [IMG] * 16 + [2] + [IMG] * 16 + [3])
    assert best("uniform", layout, 4) == [0, 2, 4, 6]
    chosen = best("uniform", layout, 8, sample=1)
    assert sum(place < 16 for place in chosen) == 4
    assert [place % 16 for place in chosen[:4]] == [place % 16 for place in chosen[4:]]
