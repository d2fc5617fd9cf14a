from __future__ import annotations

import pytest
import torch

from himap.errors import UserError
from himap.layout import Counts, Layout

IMG = 9


def kinds(layout: Layout) -> list[str]:
    """One letter a token: s(ystem), v(isual), i(nstruction), - (padding)."""
    masks = {"s": layout.system, "v": layout.image, "i": layout.instruction, "-": layout.padding}
    assert torch.equal(
        sum(mask.int() for mask in masks.values()), torch.ones_like(layout.image, dtype=torch.int)
    )
    return [
        "".join(
            next(letter for letter, mask in masks.items() if mask[b, t]) for t in range(layout.image.shape[1])
        )
        for b in range(layout.image.shape[0])
    ]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 2, IMG, IMG, 3, 4], "ssvvii"),
        ([IMG, IMG, 1, 2, 3, 4], "vviiii"),
        ([1, IMG, 2, IMG, IMG, 3], "svivvi"),
        ([1, 2, 3, 4, 5, 6], "ssssss"),
        ([1, 2, 3, IMG, IMG, IMG], "sssvvv"),
    ],
    ids=["one-image", "image-first", "two-images", "text-only", "image-last"],
)
def test_kinds_follow_from_the_ids(ids: list[int], expected: str) -> None:
    assert kinds(Layout.from_ids(torch.tensor([ids]), [IMG])) == [expected]


def test_padding_on_either_side_belongs_to_no_kind() -> None:
    ids = torch.tensor([[IMG, 0, 1, IMG, 2], [1, IMG, 2, IMG, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    layout = Layout.from_ids(ids, [IMG], mask)
    assert kinds(layout) == ["--svi", "svi--"]
    assert layout.counts == [Counts(1, 1, 1), Counts(1, 1, 1)]
    assert layout.last.int().tolist() == [[0, 0, 0, 0, 1], [0, 0, 1, 0, 0]]


def test_several_placeholder_ids_are_all_image() -> None:
    assert kinds(Layout.from_ids(torch.tensor([[1, 8, 9, 2]]), [8, 9])) == ["svvi"]


def test_fingerprint_depends_on_the_tokens_and_their_order_but_not_on_padding() -> None:
    ids = torch.tensor([[0, 0, 5, 6, 7], [5, 6, 7, 0, 0], [0, 0, 6, 5, 7], [0, 0, 5, 6, 8]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]])
    prints = Layout.from_ids(ids, [IMG], mask).fingerprint.tolist()
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_wrong_arguments_are_named() -> None:
    ids = torch.tensor([[1, IMG, 2]])
    with pytest.raises(UserError, match=r"attention_mask=.*shape of input_ids"):
        Layout.from_ids(ids, [IMG], torch.ones(1, 4))
    with pytest.raises(UserError, match="image_token_ids"):
        Layout.from_ids(ids, [])
