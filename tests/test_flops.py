from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from tiny import tiny_llava
from torch.utils.flop_counter import FlopCounterMode

from himap import criteria
from himap.attention import column_sums
from himap.criteria import RowCriterion
from himap.errors import ConfigError
from himap.flops import DecoderShape, count, paper, prefill
from himap.layout import Counts
from himap.pruning import Pruner
from himap.strategy import Stage, Strategy

LLAVA_7B = DecoderShape(32, 4096, 11008, 32, 32, 128, 32064)
LLAVA_13B = DecoderShape(40, 5120, 13824, 40, 40, 128, 32064)
GROUPED = DecoderShape(6, 64, 96, 4, 2, 16, 100)


def strategies(first: int = 2, second: int = 8) -> dict[str, Strategy]:
    shallow, deep = Stage(first, 0.5, "img2txt", name="a"), Stage(second, 0.75, "img2img", name="b")
    fastv = Stage(first, 0.5, "last2img")
    return {
        "none": Strategy("none"),
        "fastv": Strategy("fastv", (fastv,)),
        "himap": Strategy("himap", (shallow, deep)),
    }


@pytest.mark.parametrize(
    ("shape", "first", "expected"),
    [
        (LLAVA_7B, 2, {"none": 2.986, "fastv": 1.566, "himap": 0.735}),
        (LLAVA_13B, 3, {"none": 5.813, "fastv": 3.093, "himap": 1.365}),
    ],
    ids=["7b", "13b"],
)
def test_the_papers_table_1(shape: DecoderShape, first: int, expected: dict[str, float]) -> None:
    for name, strategy in strategies(first).items():
        tflops, share = paper(shape, strategy, 576)
        assert round(tflops, 3) == expected[name]
        assert share == pytest.approx(expected[name] / expected["none"], abs=1e-3)


def test_the_prefill_of_llava_7b() -> None:
    counted = {name: prefill(LLAVA_7B, strategy, 35, 576, 60) for name, strategy in strategies().items()}
    assert {name: (round(t, 3), round(100 * s, 1)) for name, (t, s) in counted.items()} == {
        "none": (8.927, 100.0),
        "fastv": (5.281, 59.2),
        "himap": (3.137, 35.1),
    }


def test_count_holds_both() -> None:
    both = count(LLAVA_7B, strategies()["himap"], 35, 576, 60)
    assert (both.paper_tflops, both.paper_share) == paper(LLAVA_7B, strategies()["himap"], 576)
    assert (both.prefill_tflops, both.prefill_share) == prefill(LLAVA_7B, strategies()["himap"], 35, 576, 60)


@pytest.mark.parametrize("name", ["none", "fastv", "himap"])
@pytest.mark.parametrize("shape", [LLAVA_7B, GROUPED], ids=["7b", "grouped-query"])
def test_the_prefill_equals_what_torch_counts(shape: DecoderShape, name: str) -> None:
    """On the meta device: each layer with as many tokens as the strategy leaves it, and each ranking."""
    strategy = strategies(second=4)[name]
    n_system, n_image, n_instruction = 35, 576, 60
    with FlopCounterMode(display=False) as counter:
        run_on_meta(shape, strategy, n_system, n_image, n_instruction)
    expected, _ = prefill(shape, strategy, n_system, n_image, n_instruction)
    assert counter.get_total_flops() == round(expected * 1e12)


def run_on_meta(shape: DecoderShape, strategy: Strategy, n_system: int, n_image: int, n_last: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        vocab_size=shape.vocab,
        attn_implementation="sdpa",
    )
    ranked = {stage.layer - 1: stage for stage in strategy.stages}
    with torch.device("meta"), torch.no_grad():
        model = LlamaForCausalLM(config).half()
        for number, n in enumerate(strategy.tokens_per_layer(n_image, shape.n_layers)):
            n_tokens = n_system + n + n_last
            hidden = torch.empty(1, n_tokens, shape.hidden).half()
            tables = (torch.empty(1, n_tokens, shape.head_dim).half(),) * 2
            model.model.layers[number](hidden, position_embeddings=tables)
            if number in ranked:
                query = torch.empty(1, shape.n_heads, n_tokens, shape.head_dim)
                key = torch.empty(1, shape.n_kv_heads, n_tokens, shape.head_dim)
                criterion: Any = criteria.get(ranked[number].criterion)
                n_rows = criterion.n_rows(Counts(n_system, n, n_last))
                column_sums(query, key, torch.empty(1, n_tokens).bool(), 1.0, n_rows=n_rows)
        model.lm_head(hidden[:, -1:])


@pytest.mark.parametrize("name", ["none", "fastv", "himap"])
def test_the_prefill_equals_what_a_pruned_model_runs(name: str) -> None:
    """The Pruner itself on a tiny grouped-query LLaVA, less the vision tower that no count includes."""
    tiny = tiny_llava(kv_heads=2, attn="eager")
    strategy = strategies(second=4)[name]
    inputs = tiny.batch(n_text=(7,))
    with FlopCounterMode(display=False) as vision:
        tiny.model.get_image_features(inputs["pixel_values"])
    with (
        Pruner(tiny.model, strategy, image_token_ids=tiny.image_token_ids),
        FlopCounterMode(display=False) as all_,
    ):
        tiny.model(**inputs, logits_to_keep=1)
    shape = DecoderShape.from_config(tiny.model.config)
    assert shape == GROUPED
    expected, _ = prefill(shape, strategy, 4, 16, 7)
    assert all_.get_total_flops() - vision.get_total_flops() == round(expected * 1e12)


@pytest.mark.parametrize("name", ["img2txt", "img2img", "all2img", "last2img", "random", "uniform"])
def test_ranking_costs_what_the_criterion_sums(name: str) -> None:
    criterion = criteria.get(name)
    rows = criterion.n_rows(Counts(35, 576, 60)) if isinstance(criterion, RowCriterion) else 0
    free = prefill(GROUPED, Strategy("x", (Stage(2, 0.5, "random"),)), 35, 576, 60)[0]
    costs = prefill(GROUPED, Strategy("x", (Stage(2, 0.5, name),)), 35, 576, 60)[0]
    assert (costs - free) * 1e12 == pytest.approx(2 * rows * 671 * (64 + 4), abs=1)


def test_without_images_nothing_can_be_saved() -> None:
    flops = count(LLAVA_7B, strategies()["himap"], 35, 0, 60)
    assert (flops.paper_tflops, flops.paper_share, flops.prefill_share) == (0.0, 1.0, 1.0)


def test_a_stage_beyond_the_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be below the model's 6 decoder layers"):
        paper(GROUPED, strategies()["himap"], 576)


def test_arithmetic_needs_no_torch() -> None:
    code = "import sys, himap.flops, himap.strategy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
