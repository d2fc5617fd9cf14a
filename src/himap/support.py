"""Which models and calls can be pruned soundly; the others are refused by name, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from himap.errors import Unsupported
from himap.layout import Layout

# Text decoders on which the laws of tests/test_pruning*.py were run.
_TEXT_TYPES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen2_vl_text",
    "qwen2_5_vl_text",
    "qwen3_vl_text",
)

_BIDIRECTIONAL = (
    "image tokens attend to later ones, which the criteria and masks for causal attention do not cover"
)
_HYBRID = "some of its layers have no attention map (linear attention or convolution)"
_REFUSED = {
    "gemma3": _BIDIRECTIONAL,
    "paligemma": _BIDIRECTIONAL,
    "molmo2": _BIDIRECTIONAL,
    "gemma3n": "its hidden states are four-dimensional and layers share keys and values",
    "gemma4": "its layers take inputs of their own and share keys and values",
    "llama4": "its attention is chunked",
    "qwen3_5": _HYBRID,
    "qwen3_5_moe": _HYBRID,
    "qwen4_exp": _HYBRID,
    "minicpmv4_7": _HYBRID,
    "lfm2_vl": _HYBRID,
    "lfm3_vl": _HYBRID,
    "kimi_k25": "its cache holds compressed keys",
    "mllama": "its images enter by cross-attention and hold no tokens in the sequence",
}
_IMPLEMENTATIONS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4")


def text_decoder(model: nn.Module) -> nn.Module:
    """The module of the model that holds the decoder's `layers`.

    Raises:
        Unsupported: the model has no such module.
    """
    inner = getattr(model, "model", model)
    # Idefics3 and SmolVLM call it text_model.
    decoder = getattr(inner, "language_model", getattr(inner, "text_model", inner))
    if not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
        raise Unsupported(f"model={type(model).__name__}: has no decoder with a list of layers.")
    return decoder


def refuse_family(*model_types: str) -> None:
    """Refuse families that cannot be pruned soundly, from the model types of a config and its text part.

    Raises:
        Unsupported: the message names the family and the reason.
    """
    for model_type in model_types:
        reason = next((why for name, why in _REFUSED.items() if model_type in (name, f"{name}_text")), None)
        if reason:
            raise Unsupported(f"model={model_type}: cannot be pruned: {reason}.")


def check_supported(model: nn.Module) -> None:
    """Refuse models whose pruning would not be what the strategy says.

    Raises:
        Unsupported: the message names the model and the reason.
    """
    config: Any = model.config
    refuse_family(config.model_type, getattr(getattr(config, "text_config", None), "model_type", ""))
    text: Any = text_decoder(model).config
    if text.model_type not in _TEXT_TYPES:
        raise Unsupported(
            f"model={config.model_type}: its text decoder {text.model_type} has not been verified; "
            f"supported decoders: {', '.join(_TEXT_TYPES)}."
        )
    layer_types = getattr(text, "layer_types", None)
    if layer_types is None:
        sliding = getattr(text, "sliding_window", None) is not None
    else:
        sliding = any(kind != "full_attention" for kind in layer_types)
    if sliding:
        raise Unsupported(
            f"model={config.model_type}: cannot be pruned: it has sliding-window text layers, and dropping "
            "tokens moves the window."
        )
    if text._attn_implementation not in _IMPLEMENTATIONS:
        raise Unsupported(
            f"attn_implementation={text._attn_implementation}: cannot be pruned; "
            f"choose one of {', '.join(_IMPLEMENTATIONS)}."
        )


def check_call(call: Mapping[str, Any]) -> None:
    """Refuse a forward whose pruned outcome would be wrong or undefined.

    Args:
        call: the forward's arguments by name.

    Raises:
        Unsupported: the message names the argument and the reason.
    """
    from transformers import DynamicCache

    if call.get("labels") is not None:
        raise Unsupported(
            "labels: cannot be given while a pruner is attached (logits of dropped tokens are gone)."
        )
    if not isinstance(call.get("logits_to_keep", 0), int):
        raise Unsupported("logits_to_keep: must be a number while a pruner is attached (positions move).")
    mask = call.get("attention_mask")
    if mask is not None and getattr(mask, "ndim", None) != 2:
        raise Unsupported("attention_mask: must be the 2-D padding mask while a pruner is attached.")
    cache = call.get("past_key_values")
    if cache is not None and not isinstance(cache, DynamicCache):
        raise Unsupported(
            f"past_key_values={type(cache).__name__}: layers of different lengths need a DynamicCache "
            "(leave cache_implementation unset)."
        )
    if call.get("input_ids") is None and (cache is None or cache.get_seq_length() == 0):
        raise Unsupported(
            "inputs_embeds: cannot be pruned alone; pass input_ids (they show the image tokens)."
        )


def check_layout(layout: Layout) -> None:
    """Refuse prompts whose last token could be dropped: it is the one that the answer starts from.

    Raises:
        Unsupported: the message names the sample.
    """
    ending = layout.ends_with_image
    if any(ending):
        raise Unsupported(
            f"input_ids: sample {ending.index(True)} of the batch ends with an image token; "
            "put text (such as the answer's cue) after it."
        )


def check_cached_call(call: Mapping[str, Any], known: bool) -> None:
    """Refuse a forward on a filled cache that is not one decode step of a prompt that this pruner has seen.

    Raises:
        Unsupported: the message names the reason.
    """
    if any(value is not None for name, value in call.items() if name.startswith("pixel_values")):
        raise Unsupported("pixel_values: images in a later turn cannot be pruned (give all in one prefill).")
    tokens = call["input_ids"] if call.get("input_ids") is not None else call["inputs_embeds"]
    if tokens.shape[1] > 1:
        raise Unsupported(
            f"input_ids: {tokens.shape[1]} tokens on a filled cache; chunked prefill, later turns and "
            "assisted decoding cannot be pruned (prefill at once, leave prefill_chunk_size unset)."
        )
    if not known:
        raise Unsupported("past_key_values: was filled outside this pruner (prefill in its `with` block).")
