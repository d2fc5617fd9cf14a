"""Prompts about one picture share what they begin with, and answer what they answer without sharing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from test_branching import MANY, alone, branches, together
from test_pruning import each_attention, each_model, tiny
from tiny import MORE_MAKERS, N_PATCHES, Tiny, about_pictures
from torch import Tensor

from himap.layout import Layout
from himap.openings import Openings

PICTURES = (0, 0, 0, 1, 1, 2)
N_TEXT = (7, 4, 9, 5, 5, 8)


def batch(
    model: Tiny,
    pictures: Sequence[int] = PICTURES,
    n_text: Sequence[int] = N_TEXT,
    n_images: Sequence[int] = (1,) * 6,
    **options: int,
) -> dict[str, Tensor]:
    made = model.batch(n_images, n_text, **{"seed": 3, **options})
    return about_pictures(made, pictures, n_images)


@contextmanager
def seen(model: Tiny) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of each call of the decoder's first layer."""
    shapes: list[tuple[int, int]] = []
    hook = model.model.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, args: shapes.append((args[0].shape[0], args[0].shape[1]))
    )
    yield shapes
    hook.remove()


def check_equal(model: Tiny, inputs: dict[str, Tensor], calls: list[tuple[int, int]]) -> None:
    """One pass is a pruner for each, and the first layer saw tokens so (before the answers)."""
    with seen(model) as shapes:
        found = together(model, inputs, MANY)
    assert shapes[: len(calls)] == calls
    for number, strategy in enumerate(MANY):
        for ours, its in zip(found[number], alone(model, inputs, strategy), strict=True):
            assert torch.allclose(ours, its, atol=1e-5), strategy
    assert (found[0][0] - found[1][0]).abs().max() > 0.1, "strategies that agree would show nothing"
    assert (found[0][0][0] - found[0][0][1]).abs().max() > 0.1, "and so would questions"


def n_opening(model: Tiny, n_images: int = 1) -> int:
    """Tokens up to the last image token."""
    brackets = 2 if "qwen" in model.name and "llava" not in model.name else 0
    return 4 + n_images * (N_PATCHES + brackets) + 2 * (n_images - 1) - (brackets > 0)


@each_model
@each_attention
def test_sharing_changes_no_logit(name: str, attn: str) -> None:
    model = tiny(name, attn)
    inputs = batch(model)
    n = n_opening(model)
    whole = [inputs["input_ids"].shape]
    # Visual features that enter between the layers know the prompt's own order alone.
    parts = whole if name == "qwen3-vl" else [(3, n), (6, inputs["input_ids"].shape[1] - n)]
    # The walk's own way to the first layer ends there and counts, too.
    check_equal(model, inputs, [tuple(whole[0]), *map(tuple, parts)])


@pytest.mark.parametrize("name", MORE_MAKERS)
def test_nor_for_other_decoders(name: str) -> None:
    model = tiny(name, "sdpa")
    inputs = batch(model, seed=4)
    n = n_opening(model)
    check_equal(model, inputs, [(6, inputs["input_ids"].shape[1]), (3, n)])


@each_attention
def test_nor_without_any_padding(attn: str) -> None:
    model = tiny("llava-gqa", attn)
    check_equal(model, batch(model, n_text=(6,) * 6), [(6, 26), (3, 20), (6, 6)])


@each_attention
def test_nor_where_openings_are_unequally_long(attn: str) -> None:
    model = tiny("llava-mha", attn)
    n_images = (2, 2, 1, 1, 1, 1)
    inputs = batch(model, (0, 0, 1, 1, 1, 1), n_images=n_images)
    check_equal(model, inputs, [(6, inputs["input_ids"].shape[1]), (2, n_opening(model, 2)), (6, 9)])


def test_kept_tokens_and_places_are_those_without_sharing() -> None:
    model = tiny("llava-mha", "sdpa")
    inputs = batch(model)
    with torch.no_grad(), branches(model, MANY) as walk:
        shared = {n: leaf.selection for leaf in walk.run(inputs) for n in leaf.strategies}
    order = [0, 3, 5, 1, 4, 2]  # no two neighbours about one picture: nothing is shared
    mixed = {name: value[order] for name, value in inputs.items()}
    with torch.no_grad(), branches(model, MANY) as walk:
        single = {n: leaf.selection for leaf in walk.run(mixed) for n in leaf.strategies}
    for number in range(len(MANY)):
        for place, row in enumerate(order):
            ours, its = shared[number], single[number]
            assert _positions(ours.positions[row], ours.valid, row) == _positions(
                its.positions[place], its.valid, place
            )


def _positions(places: Tensor, valid: Tensor | None, row: int) -> list[int]:
    kept: list[int] = (places if valid is None else places[valid[row]]).tolist()
    return kept


def found(model: Tiny, inputs: dict[str, Tensor]) -> Openings | None:
    layout = Layout.from_ids(inputs["input_ids"], model.image_token_ids, inputs["attention_mask"])
    hidden = model.model.get_input_embeddings()(inputs["input_ids"].clamp(max=99))
    pixels = inputs["pixel_values"].flatten(1)[:, : hidden.shape[-1]]
    hidden = hidden.masked_scatter(layout.image[..., None], pixels.repeat_interleave(N_PATCHES, 0))
    return Openings.find(layout, hidden)


def test_only_equal_pictures_share() -> None:
    model = tiny("llava-mha", "sdpa")
    same = found(model, batch(model))
    assert same is not None and same.sizes == [3, 2, 1] and same.rows.tolist() == [0, 3, 5]
    other = batch(model, (0,) * 6)
    other["pixel_values"][1].view(-1)[0] += 1e-3
    once = found(model, other)
    assert once is not None and once.sizes == [1, 1, 4], "1 differs in a pixel"
    text = batch(model, (0,) * 6)
    text["input_ids"][4, text["attention_mask"][4].argmax() + 1] += 1
    words = found(model, text)
    assert words is not None and words.sizes == [4, 1, 1], "4 differs in a word before the picture"


def test_too_little_is_not_shared() -> None:
    model = tiny("llava-mha", "sdpa")
    assert found(model, batch(model, (0, 1, 2, 3, 4, 4), n_text=(9,) * 6)) is None
    assert found(model, batch(model, (0,), (7,), (1,))) is None
    text_only = model.batch((0, 0), (5, 5))
    assert found(model, {**text_only, "pixel_values": torch.zeros(0, 3, 16, 16)}) is None
