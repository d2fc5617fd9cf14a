"""The Pruner leaves the model as it found it, and refuses what it cannot do soundly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import IMAGE_ID, PAD_ID, Tiny, tiny_llava, tiny_qwen2_vl
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from himap.errors import ConfigError, Unsupported, UserError
from himap.pruning import Pruner, check_supported, text_decoder
from himap.strategy import Stage, Strategy

HIMAP = Strategy("himap", (Stage(2, 0.5, "img2txt", name="a"), Stage(4, 0.75, "img2img", name="b")))
NONE = Strategy("none")


def pruner(tiny: Tiny, strategy: Strategy = HIMAP) -> Pruner:
    return Pruner(tiny.model, strategy, image_token_ids=tiny.image_token_ids)


def state(model: nn.Module) -> list[Any]:
    """Everything that an attachment could leave behind: attributes, hooks, configs, registered functions."""
    found: list[Any] = [
        dict(AttentionInterface._global_mapping),
        dict(AttentionMaskInterface._global_mapping),
    ]
    for name, module in model.named_modules():
        values = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        hooks = {key: dict(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        config = getattr(module, "config", None)
        found.append((name, values, hooks, id(config), getattr(config, "_attn_implementation", None)))
    return found


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was_found(attn: str) -> None:
    tiny = tiny_llava(attn=attn)
    inputs = tiny.batch()
    plain = tiny.model(**inputs).logits  # transformers installs hooks of its own on a first call
    before = state(tiny.model)
    with pruner(tiny):
        tiny.model(**inputs)
        assert state(tiny.model) != before, "the comparison sees no attachment"
    assert state(tiny.model) == before
    assert torch.equal(tiny.model(**inputs).logits, plain)


@pytest.mark.parametrize("where", ["in the block", "in a layer"])
def test_it_is_left_as_found_also_after_an_error(where: str) -> None:
    tiny = tiny_llava()
    inputs = tiny.batch()
    tiny.model(**inputs)
    before = state(tiny.model)
    layer = text_decoder(tiny.model).layers[5]
    with pytest.raises(ZeroDivisionError), pruner(tiny) as attached:
        if where == "in a layer":
            handle = layer.register_forward_pre_hook(lambda *_: 1 / 0)
            try:
                tiny.model(**inputs)
            finally:
                handle.remove()
                assert attached._prefill is None
        raise ZeroDivisionError
    assert state(tiny.model) == before


def test_an_attachment_that_fails_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_llava()
    before = state(tiny.model)
    attached = pruner(tiny)
    broken = text_decoder(tiny.model).layers[3]
    monkeypatch.setattr(broken, "register_forward_pre_hook", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError), attached:
        pass
    monkeypatch.undo()
    assert state(tiny.model) == before
    with attached:
        tiny.model(**tiny.batch())


def test_without_stages_nothing_is_attached() -> None:
    tiny = tiny_llava()
    before = state(tiny.model)
    with pruner(tiny, NONE) as attached:
        assert state(tiny.model) == before
    assert attached.kept == []


@pytest.mark.parametrize("inner", [HIMAP, NONE], ids=["himap", "none"])
def test_a_second_pruner_on_the_same_model_is_refused(inner: Strategy) -> None:
    tiny = tiny_llava()
    with pruner(tiny) as attached:
        with pytest.raises(UserError, match="attached to this model already"), pruner(tiny, inner):
            pass
        with pytest.raises(UserError, match="attached to this model already"), attached:
            pass
        tiny.model(**tiny.batch())
    with attached:
        pass


def test_a_stage_beyond_the_last_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"layer=6: must be below the model's 6"):
        pruner(tiny_llava(), Strategy("deep", (Stage(6, 0.5, "img2txt"),)))


def refuse_call(match: str, **changes: Any) -> None:
    tiny = tiny_llava()
    inputs = {**tiny.batch(), **changes}
    tiny.model(**{**inputs, "attention_mask": None})
    with pruner(tiny), pytest.raises(Unsupported, match=match):
        tiny.model(**inputs)


def test_calls_without_a_sound_meaning_are_refused() -> None:
    ids = tiny_llava().batch()["input_ids"]
    refuse_call("labels", labels=ids)
    refuse_call("logits_to_keep", logits_to_keep=torch.tensor([1, 2]))
    refuse_call("attention_mask", attention_mask=torch.ones(1, 1, ids.shape[1], ids.shape[1]).bool())


def test_embeddings_alone_are_refused() -> None:
    tiny = tiny_llava()
    with pruner(tiny), pytest.raises(Unsupported, match="inputs_embeds"):
        tiny.model(inputs_embeds=torch.zeros(1, 3, 64))


def test_a_prompt_that_ends_with_an_image_is_refused() -> None:
    tiny = tiny_llava()
    with pruner(tiny), pytest.raises(Unsupported, match="ends with an image token"):
        tiny.model(**tiny.batch(n_text=(0,)))


def test_a_static_cache_is_refused() -> None:
    tiny = tiny_llava()
    with pruner(tiny), pytest.raises(Unsupported, match="StaticCache"):
        tiny.model.generate(**tiny.batch(), max_new_tokens=2, cache_implementation="static")


def test_chunked_prefill_is_refused() -> None:
    tiny = tiny_llava()
    inputs = {key: value for key, value in tiny.batch().items() if key != "pixel_values"}
    inputs["input_ids"] = torch.where(inputs["input_ids"] == IMAGE_ID, 5, inputs["input_ids"])
    with pruner(tiny), pytest.raises(Unsupported, match="chunked prefill"):
        tiny.model.generate(**inputs, max_new_tokens=2, prefill_chunk_size=8)


def test_an_image_in_a_later_turn_is_refused() -> None:
    tiny = tiny_llava()
    inputs = tiny.batch()
    with pruner(tiny):
        cache = tiny.model(**inputs, use_cache=True).past_key_values
        with pytest.raises(Unsupported, match="later turn"):
            tiny.model(
                input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"], past_key_values=cache
            )


def test_a_cache_filled_outside_is_refused() -> None:
    tiny = tiny_llava()
    cache = tiny.model(**tiny.batch(), use_cache=True).past_key_values
    with pruner(tiny), pytest.raises(Unsupported, match="filled outside"):
        tiny.model(input_ids=torch.tensor([[5]]), past_key_values=cache)


def test_calling_the_inner_decoder_is_refused() -> None:
    tiny = tiny_llava()
    with pruner(tiny), pytest.raises(UserError, match="call that model itself"):
        text_decoder(tiny.model)(inputs_embeds=torch.zeros(1, 3, 64))


def test_sliding_windows_are_refused() -> None:
    tiny = tiny_qwen2_vl()
    text_decoder(tiny.model).config.layer_types = ["sliding_attention"] * 6
    with pytest.raises(Unsupported, match="sliding-window"):
        check_supported(tiny.model)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("gemma3", "attend to later ones"),
        ("paligemma", "attend to later ones"),
        ("molmo2", "attend to later ones"),
        ("gemma3n", "four-dimensional"),
        ("gemma4", "share keys and values"),
        ("llama4", "chunked"),
        ("qwen3_5", "no attention map"),
        ("lfm2_vl", "no attention map"),
        ("kimi_k25", "compressed keys"),
        ("mllama", "cross-attention"),
        ("glm4v_unheard_of", "has not been verified"),
    ],
)
def test_families_that_are_not_handled_are_refused_by_name(model_type: str, reason: str) -> None:
    tiny = tiny_llava()
    tiny.model.config.model_type = model_type
    if reason == "has not been verified":
        text_decoder(tiny.model).config.model_type = model_type
    with pytest.raises(Unsupported, match=f"{model_type}.*{reason}"):
        pruner(tiny)


def test_an_implementation_without_a_mask_of_ours_is_refused() -> None:
    tiny = tiny_llava()
    text_decoder(tiny.model).config._attn_implementation = "flex_attention"
    with pytest.raises(Unsupported, match="attn_implementation=flex_attention"):
        pruner(tiny)


def test_a_generated_image_token_is_just_a_token() -> None:
    tiny = tiny_llava()
    inputs = tiny.batch()
    with pruner(tiny):
        tiny.model.generation_config.suppress_tokens = None
        tokens = tiny.model.generate(
            **inputs, max_new_tokens=3, sequence_bias=[[[IMAGE_ID], 1e4]], pad_token_id=PAD_ID
        )
    assert tokens[0, -3:].tolist() == [IMAGE_ID] * 3
