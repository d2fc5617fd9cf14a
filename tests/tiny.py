"""Tiny random models, seeded, and ragged batches for them. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

IMAGE_ID = 99
VIDEO_ID = 98
START_ID, END_ID = 96, 97
VOCAB = 100
PAD_ID = 0
N_LAYERS = 6
N_PATCHES = 16  # image tokens of one picture
_QWEN_IDS = {
    "image_token_id": IMAGE_ID,
    "video_token_id": VIDEO_ID,
    "vision_start_token_id": START_ID,
    "vision_end_token_id": END_ID,
}


@dataclass(frozen=True)
class Tiny:
    """A model, its placeholder ids and a maker of inputs.

    `batch(n_images, n_text, seed)` gives keyword arguments of `forward` and `generate`: sample i has
    `n_images[i]` pictures and `n_text[i]` text tokens at its end; left-padded.
    """

    name: str
    model: Any
    image_token_ids: tuple[int, ...]
    batch: Callable[..., dict[str, Tensor]]


def tiny_llava(kv_heads: int = 4, attn: str = "sdpa", n_layers: int = N_LAYERS, text: str = "llama") -> Tiny:
    """LLaVA with a decoder of 4 heads; `kv_heads` below 4 makes it grouped-query attention."""
    from transformers import AutoConfig, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    extra = {"llama": {}, "mistral": {"sliding_window": None}, "qwen3": {"head_dim": 16}}[text]

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
            projection_dim=32,
        ),
        text_config=AutoConfig.for_model(text, num_key_value_heads=kv_heads, **_text(n_layers), **extra),
        image_token_id=IMAGE_ID,
        vision_feature_layer=-1,
        attn_implementation=attn,
    )
    model = _seeded(lambda: LlavaForConditionalGeneration(config))
    name = f"llava-{'mha' if kv_heads == 4 else 'gqa'}"
    return Tiny(name, model, (IMAGE_ID,), lambda *a, **k: _batch(partial(_pixels, size=16), *a, **k))


def tiny_internvl(attn: str = "sdpa") -> Tiny:
    """InternVL (the transformers-native kind) with a Qwen2 decoder."""
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLVisionConfig,
        Qwen2Config,
    )

    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=[32, 32],
            patch_size=[4, 4],
        ),
        text_config=Qwen2Config(num_key_value_heads=2, **_text(N_LAYERS)),
        image_token_id=IMAGE_ID,
        image_seq_length=N_PATCHES,
        downsample_ratio=0.5,
        vision_feature_layer=-1,
        attn_implementation=attn,
    )
    model = _seeded(lambda: InternVLForConditionalGeneration(config))
    return Tiny(
        "internvl", model, (IMAGE_ID,), lambda *a, **k: _batch(lambda n, g: _pixels(n, g, 32), *a, **k)
    )


def tiny_qwen2_vl(attn: str = "sdpa") -> Tiny:
    """Qwen2-VL: M-RoPE, whose positions are not the indices of the tokens."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    config = Qwen2VLConfig(
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        text_config={
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            **_text(N_LAYERS),
        },
        **_QWEN_IDS,
        attn_implementation=attn,
    )
    model = _seeded(lambda: Qwen2VLForConditionalGeneration(config))
    return Tiny("qwen2-vl", model, (IMAGE_ID,), _qwen_batch)


def tiny_qwen2_5_vl(attn: str = "sdpa") -> Tiny:
    """Qwen2.5-VL: M-RoPE, windowed attention in the vision tower."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 32, "num_heads": 2}
    vision |= {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16}
    config = Qwen2_5_VLConfig(
        vision_config={**vision, "fullatt_block_indexes": [1]},
        text_config={
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            **_text(N_LAYERS),
        },
        **_QWEN_IDS,
        attn_implementation=attn,
    )
    model = _seeded(lambda: Qwen2_5_VLForConditionalGeneration(config))
    return Tiny("qwen2.5-vl", model, (IMAGE_ID,), _qwen_batch)


def tiny_qwen3_vl(attn: str = "sdpa") -> Tiny:
    """Qwen3-VL: M-RoPE, q/k-norm, visual features added again after the first three layers (deepstack)."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {"depth": 3, "hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 32, "num_heads": 2}
    vision |= {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    config = Qwen3VLConfig(
        vision_config={**vision, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]},
        text_config={
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            **_text(N_LAYERS),
        },
        **_QWEN_IDS,
        attn_implementation=attn,
    )
    model = _seeded(lambda: Qwen3VLForConditionalGeneration(config))
    return Tiny("qwen3-vl", model, (IMAGE_ID,), _qwen_batch)


MAKERS: dict[str, Callable[..., Tiny]] = {
    "llava-mha": tiny_llava,
    "llava-gqa": lambda **kwargs: tiny_llava(kv_heads=2, **kwargs),
    "qwen2-vl": tiny_qwen2_vl,
    "internvl": tiny_internvl,
    "qwen3-vl": tiny_qwen3_vl,
}
# Other decoders that are said to be supported; the laws that differ by decoder run on them too.
MORE_MAKERS: dict[str, Callable[..., Tiny]] = {
    "llava-mistral": lambda **kwargs: tiny_llava(text="mistral", kv_heads=2, **kwargs),
    "llava-qwen3": lambda **kwargs: tiny_llava(text="qwen3", kv_heads=2, **kwargs),
    "qwen2.5-vl": tiny_qwen2_5_vl,
}


def rows_of(inputs: dict[str, Tensor], sample: int, n_images: Sequence[int]) -> dict[str, Tensor]:
    """The inputs of one sample of a batch alone, without its padding."""
    keep = inputs["attention_mask"][sample].bool()
    n = sum(n_images[:sample]), sum(n_images[: sample + 1])
    single = {}
    for key, value in inputs.items():
        if key in ("input_ids", "attention_mask", "mm_token_type_ids"):
            single[key] = value[sample : sample + 1, keep]
        elif n[0] < n[1]:
            per_image = value.shape[0] // sum(n_images)
            single[key] = value[n[0] * per_image : n[1] * per_image]
    return single


def about_pictures(
    inputs: dict[str, Tensor], pictures: Sequence[int], n_images: Sequence[int]
) -> dict[str, Tensor]:
    """The same prompts, but that those of one picture begin with the same text and show the same pixels.

    Args:
        inputs: a batch.
        pictures: for each sample a number; equal ones must have equally many images.
        n_images: of each sample.
    """
    inputs = {name: value.clone() for name, value in inputs.items()}
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for row, number in enumerate(pictures):
        first = pictures.index(number)
        opening = ids[first, mask[first].bool()]
        if n_images[row]:
            n_opening = int((opening == IMAGE_ID).nonzero()[-1]) + 1
            at = int((mask[row] == 0).sum())
            ids[row, at : at + n_opening] = opening[:n_opening]
        for name in ("pixel_values", "image_grid_thw"):
            if name in inputs and n_images[row]:
                size = len(inputs[name]) // sum(n_images)
                here, there = (size * sum(n_images[:number]) for number in (row, first))
                n = size * n_images[row]
                inputs[name][here : here + n] = inputs[name][there : there + n]
    return inputs


def _qwen_pictures(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    if n == 0:
        return {}
    patches = torch.randn(n * 4 * N_PATCHES, 3 * 2 * 4 * 4, generator=generator)
    return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, 8, 8]] * n)}


def _qwen_batch(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
    inputs = _batch(_qwen_pictures, *args, brackets=True, **kwargs)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE_ID).int()
    return inputs


def _text(n_layers: int) -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": PAD_ID,
        "tie_word_embeddings": False,
    }


def _seeded(make: Callable[[], nn.Module]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    # Larger than the usual start: attention must be sharp enough for rankings to differ.
                    parameter.normal_(0, 1.6 * parameter[0].numel() ** -0.5, generator=generator)
    model.eval()
    # Random text must not look like a picture, nor stop early.
    model.generation_config.suppress_tokens = [IMAGE_ID, VIDEO_ID, START_ID, END_ID]
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD_ID
    return model


def _pixels(n: int, generator: torch.Generator, size: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(n, 3, size, size, generator=generator)} if n else {}


def _batch(
    images: Callable[[int, torch.Generator], dict[str, Tensor]],
    n_images: Sequence[int] = (1,),
    n_text: Sequence[int] = (7,),
    seed: int = 0,
    brackets: bool = False,
    n_system: int = 4,
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def words(n: int) -> list[int]:
        return torch.randint(3, 90, (n,), generator=generator).tolist()

    picture = [IMAGE_ID] * N_PATCHES
    if brackets:
        picture = [START_ID, *picture, END_ID]
    prompts = []
    for n_pictures, n_words in zip(n_images, n_text, strict=True):
        prompt = words(n_system)
        for number in range(n_pictures):
            prompt += picture + (words(2) if number + 1 < n_pictures else [])
        prompts.append(prompt + words(n_words))
    width = max(map(len, prompts))
    pad = [[PAD_ID] * (width - len(prompt)) for prompt in prompts]
    return {
        "input_ids": torch.tensor([p + prompt for p, prompt in zip(pad, prompts, strict=True)]),
        "attention_mask": torch.tensor(
            [[0] * len(p) + [1] * len(prompt) for p, prompt in zip(pad, prompts, strict=True)]
        ),
        **images(sum(n_images), generator),
    }
