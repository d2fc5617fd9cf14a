from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny import Tiny, tiny_llava, tiny_qwen2_vl

from himap.branching import Branches
from himap.errors import UserError
from himap.models.ranking import option_nlls
from himap.pruning import Pruner
from himap.strategy import Stage, Strategy

OPTIONS = [[[5], [6, 7, 8], [9, 10]], [[11, 12], [13]]]
STRATEGY = Strategy("x", (Stage(2, 0.5, "img2txt", name="a"), Stage(4, 0.5, "img2img", name="b")))


def by_whole_sequences(tiny: Tiny, row: int, n_text: int, seed: int) -> list[float]:
    """Each option behind the prompt in one forward, without a cache."""
    alone = tiny.batch(n_images=[1] * 2, n_text=[9, n_text], seed=seed)
    keep = alone["attention_mask"][row].bool()
    prompt = alone["input_ids"][row : row + 1, keep]
    images = {k: v.chunk(2)[row] for k, v in alone.items() if k in ("pixel_values", "image_grid_thw")}
    losses = []
    for option in OPTIONS[row]:
        ids = torch.cat([prompt, torch.tensor([option])], dim=1)
        if "image_grid_thw" in images:
            images["mm_token_type_ids"] = (ids == tiny.image_token_ids[0]).int()
        logits = tiny.model(input_ids=ids, **images).logits
        chances = logits[0, prompt.shape[1] - 1 : -1].log_softmax(-1)
        losses.append(-float(chances[range(len(option)), option].mean()))
    return losses


@torch.no_grad()
@pytest.mark.parametrize("make", [tiny_llava, tiny_qwen2_vl], ids=["rope", "m-rope"])
def test_options_cost_what_whole_sequences_cost(make: Callable[[], Tiny]) -> None:
    tiny = make()
    tiny.model(**tiny.batch(seed=5))  # leaves an offset of another prompt behind
    batch = tiny.batch(n_images=[1, 1], n_text=[9, 4])
    found = option_nlls(tiny.model, batch, OPTIONS)
    for row in range(2):
        assert found[row] == pytest.approx(by_whole_sequences(tiny, row, 4, 0), abs=1e-4)


@torch.no_grad()
def test_under_a_pruner_an_option_is_scored_on_the_pruned_prompt() -> None:
    tiny = tiny_llava()
    batch = tiny.batch(n_images=[1, 1], n_text=[9, 4])
    plain = option_nlls(tiny.model, batch, OPTIONS)
    with Pruner(tiny.model, STRATEGY, image_token_ids=tiny.image_token_ids):
        together = option_nlls(tiny.model, batch, OPTIONS)
        one_by_one = [
            [option_nlls(tiny.model, batch, [[option], [option]])[row][0] for option in OPTIONS[row]]
            for row in range(2)
        ]
    for row in range(2):
        assert together[row] == pytest.approx(one_by_one[row], abs=1e-5), "an option changed the next"
        assert together[row] != pytest.approx(plain[row], abs=1e-3)


@torch.no_grad()
def test_text_alone_is_not_placed_by_the_last_picture() -> None:
    tiny = tiny_qwen2_vl()
    batch = tiny.batch(n_images=[0], n_text=[9])
    fresh = option_nlls(tiny.model, batch, OPTIONS[:1])
    tiny.model(**tiny.batch(seed=5))
    assert option_nlls(tiny.model, batch, OPTIONS[:1]) == fresh


def test_an_empty_option_is_refused() -> None:
    tiny = tiny_llava()
    with pytest.raises(UserError, match="at least one token"):
        option_nlls(tiny.model, tiny.batch(), [[[]]])


@torch.no_grad()
def test_behind_a_fork_an_option_costs_what_it_costs_under_a_pruner() -> None:
    tiny = tiny_llava()
    batch = tiny.batch(n_images=[1, 1], n_text=[9, 4])
    with Pruner(tiny.model, STRATEGY, image_token_ids=tiny.image_token_ids):
        alone = option_nlls(tiny.model, batch, OPTIONS)
    strategies = [Strategy("none"), STRATEGY]
    with Branches(tiny.model, strategies, image_token_ids=tiny.image_token_ids) as branches:
        losses = {
            leaf.strategies[0]: option_nlls(tiny.model, batch, OPTIONS, (leaf.logits, leaf.cache))
            for leaf in branches.run(batch, n_new=2)
        }
    for row in range(2):
        assert losses[1][row] == pytest.approx(alone[row], abs=1e-5)
        assert losses[0][row] != pytest.approx(alone[row], abs=1e-3)
