from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import decoder_inputs, decoder_of
from tiny import MAKERS, N_LAYERS, Tiny
from torch import Tensor

from himap.analysis.disruption import Disruption, blocked_rows, blocking, consistencies
from himap.analysis.trunk import Trunk
from himap.layout import Layout
from himap.positions import prompt_positions

IMAGES, TEXT = (1, 2), (7, 4)


def layout_of(tiny: Tiny, inputs: dict[str, Tensor]) -> Layout:
    return Layout.from_ids(inputs["input_ids"], tiny.image_token_ids, inputs["attention_mask"])


@torch.no_grad()
def eager(tiny: Tiny, inputs: dict[str, Tensor], disruption: Disruption, mode: str, rows: Tensor) -> Tensor:
    """The last position's logits, with whole maps of our own in every layer; nothing of himap's engine."""
    hidden, tables, deepstack = decoder_inputs(tiny, inputs)
    present = inputs["attention_mask"].bool()
    image = inputs["input_ids"] == tiny.image_token_ids[0]
    n = hidden.shape[1]
    seen = torch.ones(n, n, dtype=torch.bool).tril() & present[:, None] | torch.eye(n, dtype=torch.bool)
    pairs = (rows[:, :, None] & image[:, None])[:, None]
    for number, layer in enumerate(decoder_of(tiny).layers, start=1):
        blocked = disruption.first <= number <= disruption.last
        attention = layer.self_attn

        def attend(
            module: Any,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            mask: Any,
            scaling: float,
            blocked: bool = blocked,
            **_: Any,
        ) -> tuple[Tensor, None]:
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
            scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~seen[:, None], float("-inf"))
            if blocked and mode == "pre":
                scores = scores.masked_fill(pairs, float("-inf"))
            weights = scores.softmax(-1)
            if blocked and mode == "post":
                weights = weights.masked_fill(pairs, 0)
            return (weights @ value).transpose(1, 2), None

        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        before = ALL_ATTENTION_FUNCTIONS["sdpa"]
        ALL_ATTENTION_FUNCTIONS["sdpa"] = attend
        try:
            hidden = layer(hidden, attention_mask=None, position_embeddings=tables)
        finally:
            ALL_ATTENTION_FUNCTIONS["sdpa"] = before
        assert attention.config._attn_implementation == "sdpa"
        if number <= len(deepstack):
            hidden = hidden + deepstack[number - 1]
    return tiny.model.lm_head(decoder_of(tiny).norm(hidden))[:, -1]


@pytest.mark.parametrize("mode", ["post", "pre"])
@pytest.mark.parametrize("flow", ["vt", "vr", "vv"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_disruption_is_its_eager_restatement(name: str, flow: str, mode: str) -> None:
    tiny = MAKERS[name]()
    inputs = tiny.batch(IMAGES, TEXT)
    layout = layout_of(tiny, inputs)
    trunk = Trunk(tiny.model, inputs)
    rows = blocked_rows(flow, layout)
    for first, last in ((1, 1), (3, 4), (2, N_LAYERS)):
        disruption = Disruption(flow, first, last)
        with blocking(tiny.model, disruption, layout, mode=mode):
            found = trunk.logits_from(first)
        expected = eager(tiny, inputs, disruption, mode, rows)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert (found - trunk.logits).abs().max() > 1e-3, "the disruption must matter"


@pytest.mark.parametrize("name", MAKERS)
def test_zero_pairs_change_no_bit(name: str) -> None:
    """A text-only prompt has no image column; layers run again from the fork give the same bits."""
    tiny = MAKERS[name]()
    inputs = tiny.batch((0, 0), TEXT)
    layout = layout_of(tiny, inputs)
    with torch.no_grad():
        positions = prompt_positions(tiny.model, inputs["attention_mask"])
        plain = tiny.model(**inputs, **positions, use_cache=False, logits_to_keep=1).logits[:, -1]
    trunk = Trunk(tiny.model, inputs)
    assert torch.equal(trunk.logits, plain)
    for flow in ("vt", "vr", "vv"):
        with blocking(tiny.model, Disruption(flow, 2, 5), layout, mode="pre"):
            assert torch.equal(trunk.logits_from(2), plain)


@pytest.mark.parametrize("name", MAKERS)
def test_going_on_from_any_layer_changes_no_bit(name: str) -> None:
    tiny = MAKERS[name]()
    inputs = tiny.batch(IMAGES, TEXT)
    trunk = Trunk(tiny.model, inputs)
    for layer in range(1, N_LAYERS + 1):
        assert torch.equal(trunk.logits_from(layer), trunk.logits), layer


def masks_of(tiny: Tiny, run: Any) -> list[Tensor]:
    """The attention mask that each layer gets, as it is when the layer has ended."""
    seen: list[Tensor] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        seen.append(kwargs["attention_mask"].clone())

    handles = [
        layer.self_attn.register_forward_hook(look, with_kwargs=True) for layer in decoder_of(tiny).layers
    ]
    run()
    for handle in handles:
        handle.remove()
    return seen


def test_a_blocked_layer_leaves_every_mask_untouched() -> None:
    """The released code edits the mask that all layers share, and so blocks every layer from there on."""
    tiny = MAKERS["llava-mha"]()
    inputs = tiny.batch(IMAGES, TEXT)
    layout = layout_of(tiny, inputs)
    before = masks_of(tiny, lambda: tiny.model(**inputs))
    with blocking(tiny.model, Disruption("vt", 3, 3), layout, mode="pre"):
        after = masks_of(tiny, lambda: tiny.model(**inputs))
    for number, (mask, now) in enumerate(zip(before, after, strict=True), start=1):
        assert torch.equal(mask, now), f"layer {number}"


def test_one_layer_is_not_all_layers_from_there_on() -> None:
    tiny = MAKERS["llava-mha"]()
    inputs = tiny.batch(IMAGES, TEXT)
    layout = layout_of(tiny, inputs)
    trunk = Trunk(tiny.model, inputs)
    logits = []
    for last in (2, N_LAYERS):
        with blocking(tiny.model, Disruption("vt", 2, last), layout, mode="pre"):
            logits.append(trunk.logits_from(2))
    assert (logits[0] - logits[1]).abs().max() > 1e-2


def test_random_rows_are_as_many_as_the_instruction_has_and_follow_the_seed() -> None:
    tiny = MAKERS["llava-mha"]()
    inputs = tiny.batch(IMAGES, TEXT)
    layout = layout_of(tiny, inputs)
    rows = blocked_rows("vr", layout, seed=0)
    assert rows.sum(-1).tolist() == layout.instruction.sum(-1).tolist()
    assert not (rows & ~layout.image).any()
    assert torch.equal(rows, blocked_rows("vr", layout, seed=0))
    assert not torch.equal(rows, blocked_rows("vr", layout, seed=1))


def test_consistency_counts_common_tokens() -> None:
    tiny = MAKERS["llava-mha"]()
    inputs = tiny.batch(IMAGES, TEXT)
    layout = layout_of(tiny, inputs)
    disruptions = [Disruption("vt", 1, N_LAYERS), Disruption("vv", N_LAYERS, N_LAYERS)]
    logits, (vt, vv) = consistencies(tiny.model, inputs, layout, disruptions)
    # What the image rows see in the last layer reaches no later token.
    assert vv.label.all()
    assert vv.score.tolist() == [1.0, 1.0]
    with blocking(tiny.model, disruptions[0], layout, mode="post"), torch.no_grad():
        disturbed = tiny.model(**inputs).logits[:, -1]
    for i in range(2):
        best, now = (set(x[i].topk(5).indices.tolist()) for x in (logits, disturbed))
        assert vt.score[i].item() == pytest.approx(len(best & now) / len(best | now))
        assert bool(vt.label[i]) == (logits[i].argmax() == disturbed[i].argmax())
    assert vt.score.min() < 1
