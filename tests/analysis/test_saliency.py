from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import decoder_of
from tiny import MAKERS, Tiny
from torch import Tensor

from himap.analysis import maps, saliency
from himap.analysis.saliency import flows
from himap.layout import Layout

IMAGES, TEXT = (1, 2), (7, 4)


def layout_of(tiny: Tiny, inputs: dict[str, Tensor]) -> Layout:
    return Layout.from_ids(inputs["input_ids"], tiny.image_token_ids, inputs["attention_mask"])


def by_autograd(tiny: Tiny, inputs: dict[str, Tensor], targets: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Every layer's attention weights [B, H, T, T] and their gradients, kept by eager attention."""
    weights: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        output[1].retain_grad()
        weights.append(output[1])

    handles = [layer.self_attn.register_forward_hook(keep) for layer in decoder_of(tiny).layers]
    logits = tiny.model(**inputs, use_cache=False).logits[:, -1]
    torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    for handle in handles:
        handle.remove()
    return weights, [one.grad for one in weights]  # type: ignore[misc]


def worst(found: Tensor, expected: Tensor) -> float:
    """Largest error, relative to the largest value of the same layer's map."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("squared", [False, True], ids=["paper", "released"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_closed_form_is_autograd_through_eager_attention(
    name: str, squared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = MAKERS[name]()
    inputs = tiny.batch(IMAGES, TEXT)
    layout = layout_of(tiny, inputs)
    targets = torch.tensor([11, 23])
    n_tokens = inputs["input_ids"].shape[1]
    whole: list[Tensor] = []
    rows_of = saliency.saliency_rows

    def watched(*args: Any) -> Any:
        whole.append(torch.zeros(2, n_tokens, n_tokens))
        for rows, part in rows_of(*args):
            whole[-1][:, rows, : rows.stop] = part
            yield rows, part

    monkeypatch.setattr(saliency, "saliency_rows", watched)
    monkeypatch.setattr(maps, "_CHUNK_BYTES", 5 * 4 * 2 * 4 * n_tokens)  # five rows at once
    found = flows(tiny.model, inputs, layout, targets, squared=squared)

    weights, gradients = by_autograd(MAKERS[name](attn="eager"), inputs, targets)
    groups = torch.stack([layout.system, layout.image, layout.instruction], 1).float()
    # The last layer's gradient arrives first.
    for index, (attention, gradient, map_) in enumerate(zip(weights, gradients, whole[::-1], strict=True)):
        expected = (attention ** (2 if squared else 1) * gradient).abs().mean(1).detach()
        seen = (groups.sum(1)[:, :, None] * groups.sum(1)[:, None]).bool()
        assert worst(map_[seen], expected[seen]) < 1e-4, f"layer {index + 1}"
        summed = torch.einsum("bgr,brc,bhc->bgh", groups, expected, groups)
        torch.testing.assert_close(found.flow[:, index], summed, rtol=1e-4, atol=1e-4 * float(summed.max()))
    assert found.flow.sum((1, 2, 3)).min() > 0


def test_the_model_is_left_as_it_was() -> None:
    tiny = MAKERS["llava-gqa"]()
    inputs = tiny.batch(IMAGES, TEXT)
    frozen_before = tiny.model.lm_head.weight.requires_grad_(False)
    before = tiny.model(**inputs).logits
    flows(tiny.model, inputs, layout_of(tiny, inputs), torch.tensor([11, 23]))
    assert torch.equal(tiny.model(**inputs).logits, before)
    assert not frozen_before.requires_grad
    assert all(p.requires_grad for p in tiny.model.parameters() if p is not frozen_before)
    assert all(p.grad is None for p in tiny.model.parameters())


def test_pairs_are_those_that_the_causal_mask_shows() -> None:
    tiny = MAKERS["llava-mha"]()
    inputs = tiny.batch(IMAGES, TEXT)
    layout = layout_of(tiny, inputs)
    groups = torch.stack([layout.system, layout.image, layout.instruction], 1).long()
    triangle = torch.ones(groups.shape[-1], groups.shape[-1]).tril().long()
    expected = groups @ triangle @ groups.transpose(-1, -2)
    assert torch.equal(saliency.visible_pairs(groups.float()), expected)
    # One image of 16 tokens before 7 words; then two with 2 words between them and 4 behind.
    assert expected[:, 1, 1].tolist() == [16 * 17 // 2, 32 * 33 // 2]
    assert expected[:, 2, 1].tolist() == [7 * 16, 2 * 16 + 4 * 32]


def test_one_sample_in_a_ragged_batch_is_that_sample_alone() -> None:
    tiny = MAKERS["qwen2-vl"]()
    from tiny import rows_of

    inputs = tiny.batch(IMAGES, TEXT)
    both = flows(tiny.model, inputs, layout_of(tiny, inputs), torch.tensor([11, 23]))
    for sample, target in enumerate((11, 23)):
        own = rows_of(inputs, sample, IMAGES)
        alone = flows(tiny.model, own, layout_of(tiny, own), torch.tensor([target]))
        torch.testing.assert_close(both.flow[sample], alone.flow[0], rtol=1e-3, atol=1e-6)
