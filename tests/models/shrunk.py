"""The models of conf/model, made tiny: the same families, file layouts and special tokens, random weights."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from himap.config import FlopsConfig, HardwareConfig, ModelConfig
from himap.config.compose import compose
from himap.models import load, native, processors
from himap.models.base import Model
from himap.tasks.base import Prompt

N_LAYERS = 16  # the caption strategy prunes after layer 15
VOCAB = 600
IDS = {
    "image_token_id": 500,
    "video_token_id": 501,
    "vision_start_token_id": 502,
    "vision_end_token_id": 503,
    "pad_token_id": 0,
}
CPU = HardwareConfig(name="cpu", device="cpu", dtype="float32", batch_size=4)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "vocab_size": VOCAB,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
    "image_size": 16,
}
QWEN_VISION = {"depth": 3, "num_heads": 2, "patch_size": 4}
SPECIAL_VISION: dict[str, dict[str, Any]] = {
    "internvl": {"image_size": [32, 32], "patch_size": [4, 4]},
    "smolvlm": {"image_size": 24},  # 6 x 6 patches, for nine of them make a token
    "mistral3": {"image_size": 64, "head_dim": 16},
    "qwen2_vl": {**QWEN_VISION, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
    "qwen2_5_vl": {**QWEN_VISION, "hidden_size": 32, "intermediate_size": 32, "out_hidden_size": 32}
    | {"window_size": 16, "fullatt_block_indexes": [1]},
    "qwen3_vl": {**QWEN_VISION, "hidden_size": 32, "intermediate_size": 32, "out_hidden_size": 32}
    | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]},
}


@cache
def configured(name: str) -> ModelConfig:
    """The model's configuration as the command line composes it."""
    return compose("flops", FlopsConfig, [f"model={name}", "pruning=none"]).model


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """A published config.json with small numbers; families, ratios and switches stay."""
    small = deepcopy(config)
    family = small["model_type"]
    text, vision = small["text_config"], small["vision_config"]
    grouped = text["num_key_value_heads"] < text["num_attention_heads"]
    text.update(TEXT, num_key_value_heads=2 if grouped else 4)
    if "head_dim" in text:
        text["head_dim"] = 8
    if "mrope_section" in text.get("rope_parameters", {}):
        text["rope_parameters"]["mrope_section"] = [2, 1, 1]
    side = vision.get("image_size")
    sizes = SPECIAL_VISION.get(family, {})
    vision.update(sizes if family.startswith("qwen") else VISION | sizes)
    if "image_grid_pinpoints" in small:
        pinpoints = small["image_grid_pinpoints"]
        small["image_grid_pinpoints"] = [
            [n * vision["image_size"] // side for n in pair] for pair in pinpoints
        ]
    if "image_seq_length" in small:
        small["image_seq_length"] = 16
    small.update({key: value for key, value in IDS.items() if key in small})
    return small


def shrunk(name: str, n_layers: int = N_LAYERS, **changes: Any) -> ModelConfig:
    """A model's configuration with a small architecture."""
    config = configured(name)
    small = SHRINKERS.get(config.adapter, shrink)(config.options["config"])
    small.get("text_config", small)["num_hidden_layers"] = n_layers
    options = {**config.options, "config": small}
    if config.adapter == "internvl_chat":
        options["tower"] = {**TOWER, "image_size": 56}  # 4 x 4 patches
    return replace(config, options=options, **changes)


TOWER = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 48}
SHRINKERS: dict[str, Any] = {
    "internvl_chat": lambda config: {
        **config,
        **{key: value for key, value in TEXT.items() if key in config},
        "num_key_value_heads": 4,
    },
    "qwen_vl_chat": lambda config: {
        **config,
        "hidden_size": 128,  # heads of the resampler have 128 channels
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "vocab_size": VOCAB,
        "visual": {
            **config["visual"],
            "image_start_id": 500,
            "image_size": 56,
            "heads": 2,
            "layers": 2,
            "output_dim": 128,
            "width": 32,
        },
    },
}


def write_native(name: str, folder: Path) -> ModelConfig:
    """Write a tiny checkpoint as transformers writes them (the hub's layout), sharded, with its processor."""
    config = shrunk(name)
    model = native.build_random(config, "cpu", "float32")
    sharpen(model)
    model.save_pretrained(folder, max_shard_size="100KB")
    write_processor(processors.from_config(model.config), folder)
    return replace(config, path=str(folder))


def write_processor(processor: Any, folder: Path) -> None:
    """The files of the hub: tokenizer, preprocessor_config.json, processor_config.json, chat template."""
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    sizes = {key: value for key, value in vars(processor).items() if isinstance(value, int | str)}
    template = sizes.pop("chat_template")
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": type(processor).__name__, **sizes})
    )
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def sharpen(model: Any) -> None:
    """Larger weights than the usual start, so that attention prefers some tokens."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.6 * parameter[0].numel() ** -0.5, generator=generator)


def loaded(config: ModelConfig, **hardware: Any) -> Model:
    return load(config, replace(CPU, **hardware))


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture of noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def prompts() -> list[Prompt]:
    """Unequal text, one and two pictures of unequal size, and no picture."""
    return [
        Prompt("What is it?", (picture(0),)),
        Prompt("Are these two alike, or not?", (picture(1), picture(2, (24, 48)))),
        Prompt("Say no."),
    ]
