"""The laws of pruning on every family of conf/model: tiny, random, with real prompts and pictures.

Several tiles, image tokens in several runs, newline and break tokens, M-RoPE, deepstack, and both ports.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from reference import masked, released_algorithm
from shrunk import CPU, configured, picture, prompts, sharpen, shrunk
from test_pruning import dropped, forward, generate, n_system, pruner, stages
from tiny import Tiny

from himap.branching import Branches
from himap.models import load
from himap.models.base import Model
from himap.models.stepping import Stepper
from himap.openings import Openings
from himap.paths import conf_dir
from himap.positions import prompt_positions
from himap.reuse import Reuse
from himap.strategy import Strategy
from himap.tasks.base import Prompt

N_LAYERS = 6
HIMAP = stages((2, 0.5, "img2txt"), (4, 0.75, "img2img"))
THREE = stages((1, 0.25, "all2img"), (3, 0.5, "img2txt"), (5, 0.5, "last2img"))
# The 13B differs from the 7B by numbers alone, and the embedded model is a LLaVA.
NAMES = sorted({file.stem for file in (conf_dir() / "model").glob("*.yaml")} - {"shapes", "llava_1_5_13b"})

each_family = pytest.mark.parametrize("name", NAMES)
each_attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])


@cache
def model(name: str, attention: str = "sdpa", dtype: str = "float32") -> Model:
    config = shrunk(name, n_layers=N_LAYERS, weights="random")
    made = load(config, replace(CPU, attention=attention))
    sharpen(made.hf)
    made.hf.to(getattr(torch, dtype))
    # Random text must not look like a picture, nor stop early.
    vocabulary = made.text_config.vocab_size
    made.hf.generation_config.suppress_tokens = [0, *range(500, vocabulary)]
    made.hf.generation_config.eos_token_id = None
    made.hf.generation_config.pad_token_id = made.processor.tokenizer.pad_token_id
    return made


def tiny(name: str, attention: str = "sdpa", dtype: str = "float32") -> Tiny:
    made = model(name, attention, dtype)
    return Tiny(name, made.hf, made.image_token_ids, lambda: made.encode(prompts()))


@each_family
@each_attention
def test_dropping_nothing_is_the_plain_model_to_the_bit(name: str, attention: str) -> None:
    family = tiny(name, attention)
    inputs = family.batch()
    plain = forward(family, inputs)
    with pruner(family, stages((2, 0.0, "img2txt"), (4, 0.0, "img2img"))):
        assert torch.equal(forward(family, inputs), plain)


@each_family
@pytest.mark.parametrize("strategy", [HIMAP, THREE], ids=["himap", "three-stages"])
def test_kept_tokens_equal_the_released_algorithm(name: str, strategy: object) -> None:
    family, eager = tiny(name), tiny(name, "eager")
    inputs = model(name).encode([Prompt("What is it?", (picture(3),))])
    kept, logits = released_algorithm(eager, inputs, strategy, n_system(family, inputs))  # type: ignore[arg-type]
    plain = forward(family, inputs)[0, -1]
    with pruner(family, strategy) as attached:  # type: ignore[arg-type]
        ours = forward(family, inputs)[0, -1]
    assert [rows[0].tolist() for rows in attached.kept] == kept
    torch.testing.assert_close(ours, logits, atol=2e-4, rtol=0)
    assert (plain - ours).abs().max() > 0.05, "pruning has no effect here, so the law says nothing"


@each_family
def test_dropping_equals_masking_from_that_layer_on(name: str) -> None:
    family = tiny(name, "sdpa", "float64")
    inputs = family.batch()
    with pruner(family, HIMAP) as attached:
        ours = forward(family, inputs)[:, -1]
    with masked(family, HIMAP, dropped(family, inputs, attached.kept)):
        torch.testing.assert_close(ours, forward(family, inputs)[:, -1], atol=1e-5, rtol=1e-5)


@each_family
def test_the_cache_gives_the_tokens_of_no_cache_with_the_kept_set_frozen(name: str) -> None:
    family, eager = tiny(name), tiny(name, "eager")
    inputs = family.batch()
    with pruner(family, HIMAP) as attached:
        forward(family, inputs)
        gone = dropped(family, inputs, attached.kept)
        tokens = generate(family, inputs, max_new_tokens=3)
    with masked(eager, HIMAP, gone):
        assert generate(eager, inputs, use_cache=False, max_new_tokens=3) == tokens


@each_family
def test_a_ragged_batch_equals_one_by_one(name: str) -> None:
    family = tiny(name)
    inputs = family.batch()
    with pruner(family, HIMAP) as attached:
        kept, tokens = (forward(family, inputs), attached.kept)[1], generate(family, inputs, max_new_tokens=3)
        for number, prompt in enumerate(prompts()):
            alone = model(name).encode([prompt])
            forward(family, alone)
            assert [rows[0].tolist() for rows in attached.kept] == [rows[number].tolist() for rows in kept]
            assert generate(family, alone, max_new_tokens=3) == [tokens[number]]


@each_family
def test_one_pass_over_many_strategies_equals_one_by_one(name: str) -> None:
    family = tiny(name)
    inputs = family.batch()
    strategies = [stages(), HIMAP, stages((2, 0.5, "img2txt"), (4, 0.25, "img2img")), THREE]
    with (
        torch.no_grad(),
        Branches(family.model, strategies, image_token_ids=family.image_token_ids) as branches,
    ):
        together = {
            leaf.strategies[0]: (leaf.logits, behind(family, inputs, leaf.cache))
            for leaf in branches.run(inputs, n_new=2)
        }
    for number, strategy in enumerate(strategies):
        for ours, its in zip(together[number], alone(family, inputs, strategy), strict=True):
            assert torch.allclose(ours, its, atol=1e-5)
    assert (together[1][0] - together[2][0]).abs().max() > 1e-3


@each_family
def test_questions_about_one_picture_share_it_and_equal_one_by_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = tiny(name)
    one, two = picture(3), picture(4, (24, 48))
    asked = [("What is it?", one), ("Is it so large?", one), ("And?", one), ("What?", two), ("No?", two)]
    inputs = model(name).encode([Prompt(text, (image,)) for text, image in asked])
    found: list[Openings | None] = []
    find = Openings.find
    monkeypatch.setattr(Openings, "find", lambda *args: found.append(find(*args)) or found[-1])
    strategies = [stages(), HIMAP, THREE]
    with (
        torch.no_grad(),
        Reuse(0).attached(family.model),
        Branches(family.model, strategies, image_token_ids=family.image_token_ids) as branches,
    ):
        shared = {
            leaf.strategies[0]: (leaf.logits, behind(family, inputs, leaf.cache))
            for leaf in branches.run(inputs, n_new=2)
        }
    if "qwen3_vl" not in name:  # visual features enter between its layers
        assert [openings and openings.sizes for openings in found] == [[3, 2]]
    for number, strategy in enumerate(strategies):
        for ours, its in zip(shared[number], alone(family, inputs, strategy), strict=True):
            # Other shapes of the same products: to rounding, beside the largest logit.
            assert (ours - its).abs().max() <= 1e-5 * its.abs().max()


@torch.no_grad()
def alone(family: Tiny, inputs: dict[str, torch.Tensor], strategy: Strategy) -> tuple[torch.Tensor, ...]:
    """Logits behind the prompts and behind a token more, under a pruner."""
    positions = prompt_positions(family.model, inputs["attention_mask"])
    with pruner(family, strategy):
        output = family.model(**inputs, **positions, use_cache=True)
        return output.logits[:, -1], behind(family, inputs, output.past_key_values)


def behind(family: Tiny, inputs: dict[str, torch.Tensor], cache: object) -> torch.Tensor:
    """Logits behind a token after the prompts."""
    token = torch.full((len(inputs["input_ids"]), 1), 300)
    return Stepper(family.model, inputs["attention_mask"], cache)(token)


def test_the_13b_is_the_7b_in_other_numbers() -> None:
    small, large = (configured(f"llava_1_5_{size}b").options["config"] for size in (7, 13))
    sizes = {"hidden_size", "intermediate_size", "num_hidden_layers"}
    sizes |= {"num_attention_heads", "num_key_value_heads"}
    for config in (small, large):
        config = {**config, "text_config": {k: v for k, v in config["text_config"].items() if k not in sizes}}
    assert {k: v for k, v in small.items() if k != "text_config"} == {
        k: v for k, v in large.items() if k != "text_config"
    }
