from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_llava
from torch import Tensor

from himap import attention
from himap.attention import column_sums, right_align, tap
from himap.errors import UserError

B, H, T, D = 3, 4, 23, 8


def tensors(kv_heads: int = H) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, some rows (a different number in each sample), valid columns (left padding)."""
    generator = torch.Generator().manual_seed(0)
    query = 3 * torch.randn(B, H, T, D, generator=generator)
    key = torch.randn(B, kv_heads, T, D, generator=generator)
    valid = torch.arange(T) >= torch.tensor([[0], [2], [7]])
    rows = (torch.rand(B, T, generator=generator) < torch.tensor([[0.5], [0.9], [0.2]])) & valid
    return query, key, rows, valid


def dense(query: Tensor, key: Tensor, valid: Tensor) -> Tensor:
    """Whole attention map, averaged over heads, [B, T, T], in double precision."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1).double()
    scores = query.double() @ key.transpose(-1, -2) * D**-0.5
    seen = torch.ones(T, T, dtype=torch.bool).tril() & valid[:, None, None]
    return scores.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0).mean(1)


@pytest.mark.parametrize("chunk_rows", [1, 4, 1000])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("padded", [False, True])
def test_sums_equal_those_of_the_whole_map(
    monkeypatch: pytest.MonkeyPatch, chunk_rows: int, kv_heads: int, padded: bool
) -> None:
    monkeypatch.setattr(attention, "_CHUNK_BYTES", chunk_rows * 4 * B * H * T)
    query, key, rows, valid = tensors(kv_heads)
    valid = valid if padded else torch.ones_like(valid)
    whole = dense(query, key, valid)
    expected = (whole * rows[..., None]).sum(1)
    sums = column_sums(query, key, rows, D**-0.5, valid=valid if padded else None)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.double(), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_options_of_a_criterion(normalise: bool, exclude_self: bool) -> None:
    query, key, rows, valid = tensors()
    whole = dense(query, key, valid) * rows[..., None]
    seeing = torch.ones(T, T).tril() * rows[..., None]
    if exclude_self:
        whole, seeing = whole * (1 - torch.eye(T)), seeing * (1 - torch.eye(T))
    expected = whole.sum(1)
    if normalise:
        expected = expected / seeing.sum(1).clamp(min=1)
    sums = column_sums(query, key, rows, D**-0.5, valid=valid, normalise=normalise, exclude_self=exclude_self)
    torch.testing.assert_close(sums.double(), expected, rtol=2e-6, atol=1e-7)


def test_a_column_sum_over_all_rows_adds_up_to_the_number_of_rows() -> None:
    query, key, _, valid = tensors()
    sums = column_sums(query, key, valid, D**-0.5, valid=valid)
    torch.testing.assert_close(sums.sum(-1), valid.sum(-1).float())


def test_a_given_bound_on_the_rows_changes_nothing_and_no_rows_sum_to_nothing() -> None:
    query, key, rows, valid = tensors()
    own = column_sums(query, key, rows, D**-0.5, valid=valid)
    torch.testing.assert_close(column_sums(query, key, rows, D**-0.5, valid=valid, n_rows=T), own)
    assert not column_sums(query, key, torch.zeros_like(rows), D**-0.5).any()


def test_half_precision_is_summed_in_single() -> None:
    query, key, rows, _ = (x.bfloat16() if x.is_floating_point() else x for x in tensors())
    expected = column_sums(query.float(), key.float(), rows, D**-0.5)
    torch.testing.assert_close(column_sums(query, key, rows, D**-0.5), expected)


def test_right_align_keeps_the_order() -> None:
    mask = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0]]).bool()
    index = right_align(mask, 3)
    assert index[0].tolist() == [0, 2, 3]
    assert index[1, -1] == 1


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_the_tap_sees_what_the_attention_is_computed_from_and_changes_nothing(attn: str) -> None:
    tiny = tiny_llava(kv_heads=2, attn="eager")
    module = tiny.model.model.language_model.layers[1].self_attn
    inputs = tiny.batch()
    maps: list[Tensor] = []
    handle = module.register_forward_hook(lambda module, args, output: maps.append(output[1]))
    with torch.no_grad():
        tiny.model(**inputs)
    handle.remove()
    tiny = tiny_llava(kv_heads=2, attn=attn)
    module = tiny.model.model.language_model.layers[1].self_attn
    seen: list[Any] = []
    with torch.no_grad():
        plain = tiny.model(**inputs).logits
        with tap(module, lambda *args: seen.append(args)):
            tapped = tiny.model(**inputs).logits
    assert torch.equal(plain, tapped)
    [(owner, query, key, scale)] = seen
    assert owner is module
    scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) * scale
    causal = torch.ones_like(scores, dtype=torch.bool).tril()
    torch.testing.assert_close(scores.masked_fill(~causal, float("-inf")).softmax(-1), maps[0])


def test_the_tap_gives_the_config_back_after_an_error_and_refuses_a_second_listener() -> None:
    module = tiny_llava().model.model.language_model.layers[0].self_attn
    config = module.config
    with pytest.raises(ZeroDivisionError), tap(module, lambda *args: None):
        with pytest.raises(UserError, match="tapped already"), tap(module, lambda *args: None):
            pass
        assert module.config is not config
        raise ZeroDivisionError
    assert module.config is config
    with tap(module, lambda *args: None):
        pass
