"""Counts beside the measured shares equal what transformers' model does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import TinyModel, strategy
from torch.utils.flop_counter import FlopCounterMode

from himap.execution import make
from himap.flops import DecoderShape
from himap.latency.cost import answer_tflops, prefill_tflops
from himap.latency.memory import cache_bytes, peak, weights_bytes
from himap.latency.prompt import answers, made_up
from himap.latency.released import Released
from himap.latency.shape import Shape
from himap.latency.tower import given_features
from himap.strategy import Strategy

SHAPE = Shape(batch_size=2, n_system=3, n_image=16, n_instruction=5, n_new=4)
HIMAP = strategy(shallow=(2, 0.5, "img2txt"), deep=(4, 0.75, "img2img"))
STRATEGIES = [Strategy("none"), HIMAP]


def counted(model: TinyModel, one: Strategy, *, cached: bool) -> float:
    """TFLOPs of an answer, counted operation by operation; eager attention, for the counter misses sdpa's."""
    inputs = made_up(model, SHAPE, 0)
    model.hf.set_attn_implementation({"text_config": "eager"})
    with given_features(model, inputs):
        execution = make("eager", model, one, inputs, 3) if cached else Released(model, one)
        counter = FlopCounterMode(display=False)
        with counter:
            execution.prefill(inputs)
            for token in answers(model, SHAPE, 0)[:-1]:
                execution.step(token)
        execution.close()
    return counter.get_total_flops() / 1e12


@pytest.mark.parametrize("one", STRATEGIES, ids=["none", "himap"])
def test_an_answer_with_a_cache_costs_what_is_counted(one: Strategy) -> None:
    model = TinyModel()
    decoder = DecoderShape.from_config(model.hf.config)
    expected = answer_tflops(decoder, one, SHAPE, cached=True)
    assert counted(model, one, cached=True) == pytest.approx(expected, rel=1e-3)


def test_without_a_cache_every_token_costs_a_longer_prompt() -> None:
    model = TinyModel()
    decoder = DecoderShape.from_config(model.hf.config)
    expected = answer_tflops(decoder, Strategy("none"), SHAPE, cached=False)
    # Released code computes the logits of every position, not of the last alone.
    n_positions = [SHAPE.n_system + SHAPE.n_image + SHAPE.n_instruction + n for n in range(SHAPE.n_new)]
    head = sum(2 * decoder.hidden * decoder.vocab * (n - 1) for n in n_positions) * SHAPE.batch_size / 1e12
    assert counted(model, Strategy("none"), cached=False) == pytest.approx(expected + head, rel=1e-3)


def test_the_first_token_is_the_prefill() -> None:
    decoder = DecoderShape.from_config(TinyModel().hf.config)
    one = replace(SHAPE, n_new=1)
    for cached in (True, False):
        assert answer_tflops(decoder, HIMAP, one, cached=cached) == prefill_tflops(decoder, HIMAP, one)


@pytest.mark.parametrize("one", STRATEGIES, ids=["none", "himap"])
def test_the_cache_is_as_large_as_counted(one: Strategy) -> None:
    model = TinyModel()
    inputs = made_up(model, SHAPE, 0)
    execution = make("eager", model, one, inputs, SHAPE.n_new - 1)
    execution.prefill(inputs)
    for token in answers(model, SHAPE, 0)[:-1]:
        execution.step(token)
    layers = execution._cache.layers  # type: ignore[attr-defined]
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert held == cache_bytes(DecoderShape.from_config(model.hf.config), one, SHAPE, 4)
    execution.close()


def test_peak_memory_is_what_lived_at_one_time() -> None:
    cpu = torch.device("cpu")
    kept = []
    with peak(cpu) as found:
        for _ in range(5):
            torch.ones(2**20)  # 4 MiB, gone before the next
        kept.append(torch.ones(2**20))
        both = torch.ones(2**20)
    assert found.n_bytes is not None
    assert 8 * 2**20 <= found.n_bytes < 9 * 2**20
    assert len(kept) == 1 and both.nbytes == 4 * 2**20


def test_tied_weights_count_once() -> None:
    one, two = torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 10, bias=False)
    both = torch.nn.Sequential(one, two)
    assert weights_bytes(both) == 800
    two.weight = one.weight
    assert weights_bytes(both) == 400
