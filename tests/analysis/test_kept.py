from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MAKERS, N_PATCHES

from himap.analysis.grids import Grid, grids
from himap.analysis.kept import survivors
from himap.analysis.survival import entropy, raster_correlation, summarise_kept, survival
from himap.layout import Layout
from himap.pruning import Pruner
from himap.strategy import Stage, Strategy
from himap.tasks.base import Prompt

HIMAP = Strategy("himap", (Stage(2, 0.5, "img2txt", name="a"), Stage(4, 0.75, "img2img", name="b")))
WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("name", MAKERS)
def test_survivors_are_the_pruners_own(name: str) -> None:
    tiny = MAKERS[name]()
    inputs = tiny.batch((1, 2), (7, 4))
    layout = Layout.from_ids(inputs["input_ids"], tiny.image_token_ids, inputs["attention_mask"])
    found = survivors(tiny.model, inputs, layout, HIMAP)
    with Pruner(tiny.model, HIMAP, image_token_ids=tiny.image_token_ids) as pruner, torch.no_grad():
        tiny.model(**inputs)
        kept = pruner.kept
    assert [[len(stage) for stage in sample] for sample in found] == [[8, 2], [16, 4]]
    for sample in range(2):
        ids = inputs["input_ids"][sample][inputs["attention_mask"][sample].bool()]
        images = (ids == tiny.image_token_ids[0]).nonzero()[:, 0]
        for stage in range(2):
            assert images[found[sample][stage]].tolist() == kept[stage][sample].tolist()


def row(kept: list[list[int]], *shapes: tuple[int, int]) -> dict[str, Any]:
    return {"grids": [[0, *shape, list(WHOLE)] for shape in shapes or ((2, 2),)], "kept": [kept]}


def test_survival_counts_each_cell() -> None:
    rows = [row([[0, 1]]), row([[0, 3]])]
    np.testing.assert_allclose(survival(rows, 0, 0, (2, 2)), [[1, 0.5], [0, 0.5]])
    # Two tiles lie upon each other: four tokens a cell pair.
    tiles = [row([[0, 4, 7]], (2, 2), (2, 2))]
    np.testing.assert_allclose(survival(tiles, 0, 0, (2, 2)), [[1, 0], [0, 0.5]])
    # A grid of another shape is brought onto the common raster.
    wide = [row([[0, 1, 2, 3]], (2, 4))]
    np.testing.assert_allclose(survival(wide, 0, 0, (2, 2)), [[1, 1], [0, 0]])


def test_entropy_and_raster_order_of_hand_made_maps() -> None:
    assert entropy(np.ones((3, 3)) / 2) == pytest.approx(1)
    assert entropy(np.array([[1.0, 0], [0, 0]])) == 0
    assert entropy(np.array([[1.0, 1], [0, 0]])) == pytest.approx(0.5)
    assert raster_correlation(np.arange(9.0).reshape(3, 3)) == pytest.approx(1)
    assert raster_correlation(-np.arange(9.0).reshape(3, 3)) == pytest.approx(-1)
    assert raster_correlation(np.ones((3, 3))) is None
    assert raster_correlation(np.array([[1.0, np.nan], [2, 3]])) == pytest.approx(1)


def test_the_summary_has_a_line_a_stage() -> None:
    found = summarise_kept([row([[0, 1], [0]]), row([[0, 3], [3]])], [HIMAP])
    assert [line[:4] for line in found.tables["position"].rows] == [
        ("himap", "a", 2, "img2txt"),
        ("himap", "b", 4, "img2img"),
    ]
    assert [line[4] for line in found.tables["position"].rows] == [0.5, 0.25]
    assert len(found.tables["survival"].rows) == 8


def model(**config: Any) -> Any:
    return SimpleNamespace(
        hf=SimpleNamespace(config=SimpleNamespace(**config)),
        processor=SimpleNamespace(image_processor=SimpleNamespace(do_pad=config.get("pad", False))),
        image_token_ids=(9,),
    )


def place(n_tokens: int, size: tuple[int, int], inputs: Any = None, **config: Any) -> list[Grid]:
    prompt = Prompt(text="", images=(Image.new("RGB", size),))
    batch = {"input_ids": torch.tensor([[1] + [9] * n_tokens + [2]]), **(inputs or {})}
    (found,) = grids(model(**config), [prompt], batch)
    return found


def test_a_square_covers_the_image_and_its_padding() -> None:
    assert place(N_PATCHES, (10, 10)) == [Grid(0, 4, 4, WHOLE)]
    assert place(N_PATCHES, (20, 10), pad=True) == [Grid(0, 4, 4, (0.0, -0.5, 1.0, 1.5))]


def test_tiles_follow_the_images_shape_and_the_overview_comes_last() -> None:
    found = place(4 * 3, (20, 10), image_seq_length=4)
    assert [grid.box for grid in found] == [(0, 0, 0.5, 1), (0.5, 0, 1, 1), WHOLE]
    assert {(grid.rows, grid.columns) for grid in found} == {(2, 2)}


def test_the_processors_grid_counts() -> None:
    thw = {"image_grid_thw": torch.tensor([[1, 4, 8]])}
    vision = SimpleNamespace(spatial_merge_size=2)
    assert place(8, (10, 10), thw, vision_config=vision) == [Grid(0, 2, 4, WHOLE)]


def test_tokens_of_unknown_place_are_a_line() -> None:
    assert place(7, (10, 10)) == [Grid(0, 1, 7, None)]
