"""One pass over many strategies: equal to a pruner for each, nothing computed twice, no trace left."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from test_pruning import FASTV, HIMAP, RAGGED, THREE, each_attention, each_model, pruner, stages, tiny
from tiny import MAKERS, MORE_MAKERS, N_LAYERS, Tiny
from torch import Tensor

import himap.dropping
from himap.branching import Branches, Leaf
from himap.errors import UserError
from himap.models.stepping import Stepper
from himap.positions import forget_images, prompt_positions
from himap.strategy import Strategy
from himap.trie import trie

PLAIN = Strategy("none")
LIKE_HIMAP = stages((2, 0.5, "img2txt"), (4, 0.5, "img2img"))
MANY = [
    PLAIN,
    HIMAP,
    LIKE_HIMAP,
    stages((2, 0.5, "img2txt"), (3, 0.5, "uniform")),
    stages((2, 0.25, "img2txt"), (4, 0.75, "img2img")),
    FASTV,
    stages((2, 0.5, "all2img")),
    stages((2, 0.5, "random")),
    THREE,
    stages((1, 0.5, "random"), (2, 0.3, "all2img"), (5, 0.5, "img2txt")),
    stages((2, 0.5, "img2txt")),
    stages((3, 0.0, "img2txt")),
    stages((3, 0.5, "img2txt"), normalise=True, exclude_self=True),
]


def branches(model: Tiny, strategies: list[Strategy]) -> Branches:
    return Branches(model.model, strategies, image_token_ids=model.image_token_ids)


def steps(model: Tiny, inputs: dict[str, Tensor], cache: Any) -> list[Tensor]:
    """Logits behind three fixed tokens; the third outgrows the room that two new tokens are given."""
    behind = Stepper(model.model, inputs["attention_mask"], cache)
    n = len(inputs["input_ids"])
    return [behind(torch.full((n, 1), token)) for token in (7, 9, 5)]


@torch.no_grad()
def alone(model: Tiny, inputs: dict[str, Tensor], strategy: Strategy) -> list[Tensor]:
    with pruner(model, strategy):
        forget_images(model.model)
        positions = prompt_positions(model.model, inputs["attention_mask"])
        output = model.model(**inputs, **positions, use_cache=True)
        return [output.logits[:, -1], *steps(model, inputs, output.past_key_values)]


@torch.no_grad()
def together(model: Tiny, inputs: dict[str, Tensor], strategies: list[Strategy]) -> dict[int, list[Tensor]]:
    found: dict[int, list[Tensor]] = {}
    with branches(model, strategies) as walk:
        for leaf in walk.run(inputs, n_new=2):
            logits = [leaf.logits, *steps(model, inputs, leaf.cache)]
            assert not found.keys() & set(leaf.strategies)
            found |= dict.fromkeys(leaf.strategies, logits)
    return found


def check_equal(model: Tiny, inputs: dict[str, Tensor]) -> None:
    found = together(model, inputs, MANY)
    assert sorted(found) == list(range(len(MANY)))
    for number, strategy in enumerate(MANY):
        for ours, its in zip(found[number], alone(model, inputs, strategy), strict=True):
            assert torch.allclose(ours, its, atol=1e-5), strategy
    assert (found[0][0] - found[1][0]).abs().max() > 0.1, "strategies that agree would show nothing"
    assert (found[1][2] - found[2][2]).abs().max() > 0.01


@each_model
@each_attention
def test_one_pass_equals_a_pruner_for_each(name: str, attn: str) -> None:
    model = tiny(name, attn)
    check_equal(model, model.batch(**RAGGED, seed=3))


@pytest.mark.parametrize("name", MORE_MAKERS)
def test_it_does_so_for_other_decoders(name: str) -> None:
    model = tiny(name, "sdpa")
    check_equal(model, model.batch(**RAGGED, seed=4))


@pytest.mark.parametrize("name", list(MAKERS)[:1])
def test_it_does_so_without_padding_and_one_by_one(name: str) -> None:
    model = tiny(name, "sdpa")
    check_equal(model, model.batch((1, 1), (6, 6), seed=5))
    check_equal(model, model.batch((2,), (6,), seed=5))


def test_the_places_of_an_earlier_picture_are_forgotten() -> None:
    model = tiny("qwen2-vl", "sdpa")
    text_only = model.batch((0, 0), (9, 5), seed=6)
    together(model, model.batch((2, 1), (6, 6), seed=5), MANY[:2])
    for number, found in together(model, text_only, MANY[:2]).items():
        for ours, its in zip(found, alone(model, text_only, MANY[number]), strict=True):
            assert torch.allclose(ours, its, atol=1e-5)


def test_kept_tokens_are_those_of_a_pruner() -> None:
    model = tiny(next(iter(MAKERS)), "sdpa")
    inputs = model.batch((1, 1), (6, 6), seed=2)
    with torch.no_grad(), branches(model, MANY) as walk:
        kept = {number: leaf.selection.positions for leaf in walk.run(inputs) for number in leaf.strategies}
    for number in (1, 2, 6, 7, 8):
        with torch.no_grad(), pruner(model, MANY[number]) as one:
            model.model(**inputs)
        image = inputs["input_ids"] == model.image_token_ids[0]
        for row, want in enumerate(one.kept[-1]):
            positions = kept[number][row]
            assert positions[image[row][positions]].tolist() == want.tolist()


def counted(model: Tiny, strategies: list[Strategy], monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """How often each layer ran, on how many tokens in all, and how often something was scored."""
    counter: Counter[Any] = Counter()
    scoring = himap.dropping.column_sums

    def scored(*args: Any, **kwargs: Any) -> Tensor:
        counter["scored"] += 1
        return scoring(*args, **kwargs)

    monkeypatch.setattr(himap.dropping, "column_sums", scored)

    def ran(index: int) -> Any:
        return lambda module, args: counter.update({index: 1, (index, args[0].shape[1]): 1})

    layers = himap.pruning.text_decoder(model.model).layers
    handles = [layer.register_forward_pre_hook(ran(index)) for index, layer in enumerate(layers)]
    with torch.no_grad(), branches(model, strategies) as walk:
        counter["leaves"] = len(list(walk.run(model.batch((1,), (6,), seed=2))))
    for handle in handles:
        handle.remove()
    return counter


def test_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(next(iter(MAKERS)), "sdpa")
    same_start = [stages((2, 0.5, "img2txt"), (4, drop, "img2img")) for drop in (0.25, 0.5, 0.75)]
    other_drop = stages((2, 0.25, "img2txt"))
    found = counted(model, [*same_start, other_drop], monkeypatch)
    # The trunk once, then two ways, then four; entering a layer to read the prompt in counts one more.
    assert [found[index] for index in range(N_LAYERS)] == [2, 1, 2, 2, 4, 4]
    assert found["scored"] == 2, "once for both drops behind layer 2, once for three behind layer 4"
    assert found["leaves"] == 4


def test_equal_lengths_run_as_rows_of_one_batch_while_they_are_small(monkeypatch) -> None:
    model = tiny(next(iter(MAKERS)), "sdpa")
    alike = [stages((2, 0.5, name)) for name in ("img2txt", "img2img", "random", "uniform")]
    for limit, passes in ((10_000, 1), (50, 2), (0, 4)):
        monkeypatch.setattr(himap.branching, "_STACKED_TOKENS", limit)
        found = counted(model, alike, monkeypatch)
        assert [found[index] for index in range(N_LAYERS)] == [2, 1, passes, passes, passes, passes]
        assert found["leaves"] == 4
        check_equal(model, model.batch(**RAGGED, seed=3))


def test_the_trunk_ends_where_nobody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(next(iter(MAKERS)), "sdpa")
    n_tokens = model.batch((1,), (6,), seed=2)["input_ids"].shape[1]
    found = counted(model, [stages((2, 0.5, "img2txt"))], monkeypatch)
    assert [found[index, n_tokens] for index in range(N_LAYERS)] == [2, 1, 0, 0, 0, 0]
    found = counted(model, [stages((2, 0.5, "img2txt")), PLAIN], monkeypatch)
    assert [found[index, n_tokens] for index in range(N_LAYERS)] == [2, 1, 1, 1, 1, 1]


def test_a_pruner_beside_it_is_refused() -> None:
    model = tiny(next(iter(MAKERS)), "sdpa")
    with pruner(model, FASTV), pytest.raises(UserError, match="attached"), branches(model, [HIMAP]):
        pass
    with branches(model, [HIMAP]), pytest.raises(UserError, match="attached"), pruner(model, FASTV):
        pass
    with pruner(model, FASTV):
        pass


def test_strategies_that_keep_the_same_tokens_are_one() -> None:
    alike = [stages((2, drop, "img2txt"), (4, 0.0, "img2img")) for drop in (0.50, 0.51)]
    assert [node.strategies for _, node in trie(alike, [16]).children.values()] == [[0, 1]]
    assert len(trie(alike, [16, 576]).children) == 2
    assert trie([PLAIN, stages((3, 0.0, "img2txt"))], [16]).strategies == [0, 1]
    seeds = [stages((2, 0.5, name), seed=seed) for name in ("random", "img2txt") for seed in (0, 1)]
    assert len(trie(seeds, [16]).children) == 3, "a seed matters to `random` only"


@pytest.mark.parametrize("where", ["in a layer", "between leaves", "never"])
def test_the_model_is_left_as_it_was_found(where: str) -> None:
    model = tiny(next(iter(MAKERS)), "sdpa")
    inputs = model.batch((1, 1), (6, 6), seed=2)
    hooks = [len(module._forward_pre_hooks) for module in model.model.modules()]
    attributes = [set(vars(module)) for module in model.model.modules()]
    configs = [layer.self_attn.config for layer in model.model.model.language_model.layers]
    with torch.no_grad():
        before = model.model(**inputs).logits
        with branches(model, MANY) as walk:
            leaves = walk.run(inputs, 4)
            if where == "in a layer":
                mlp = model.model.model.language_model.layers[3].mlp
                mlp.forward, whole = None, mlp.forward
                with pytest.raises(TypeError):
                    list(leaves)
                del mlp.forward
                assert mlp.forward.__func__ is whole.__func__
            elif where == "between leaves":
                assert isinstance(next(leaves), Leaf)
                leaves.close()
            else:
                list(leaves)
        assert torch.equal(model.model(**inputs).logits, before)
    assert [len(module._forward_pre_hooks) for module in model.model.modules()] == hooks
    assert [set(vars(module)) for module in model.model.modules()] == attributes
    assert [layer.self_attn.config for layer in model.model.model.language_model.layers] == configs
