"""InternVL-Chat-v1.0 (InternViT-6B, two-layer projector, Vicuna-7B) in transformers' LLaVA class.

The published checkpoint has LLaVA's original layout: one flat config.json of model_type "llava" (which
transformers would silently take for a LLaVA with a CLIP tower) and sharded .bin files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from himap.errors import UserError
from himap.models.llava import Llava, image_processor

if TYPE_CHECKING:
    import torch

    from himap.config import HardwareConfig, ModelConfig
    from himap.models.base import Model

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLACEHOLDER = 0
"""<unk> stands for image tokens: the vocabulary has no id to spare, and bytes cover every text, so that no
prompt holds it."""

# Numbers of the tower that config.json names but does not give: InternViT-6B-224px, run at 336 pixels.
TOWER = {
    "hidden_size": 3200,
    "num_attention_heads": 25,
    "num_hidden_layers": 48,
    "intermediate_size": 12800,
    "image_size": 336,
    "patch_size": 14,
}
_TOWER_KEYS = {
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "embeddings.patch_embedding.": "embeddings.patch_embeddings.projection.",
    "encoder.layers.": "encoder.layer.",
    ".attn.q_norm.": ".attention.q_norm.",
    ".attn.k_norm.": ".attention.k_norm.",
    ".attn.proj.": ".attention.projection_layer.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".ls1": ".lambda_1",
    ".ls2": ".lambda_2",
}
_PREFIX = "model.vision_tower.vision_tower."
_PROJECTOR = {"0": "linear_1", "2": "linear_2"}


class InternVLChat(Llava):
    """LLaVA's conversation and token sequence; another tower, other pixel statistics."""


def load(config: ModelConfig, hardware: HardwareConfig) -> Model:
    """InternVL-Chat-v1.0 from its published files, or with random weights.

    Raises:
        UserError: the checkpoint is missing, incomplete or does not fit.
    """
    import torch
    from transformers import LlavaForConditionalGeneration

    from himap.models.checkpoint import load_weights
    from himap.models.hub import BIN, checkpoint_folder, shards
    from himap.models.native import attend

    dtype = getattr(torch, hardware.dtype)
    tower = {**TOWER, **config.options.get("tower", {})}
    tokenizer: Any
    if config.weights == "random":
        from himap.models.processors import byte_tokenizer

        torch.manual_seed(0)
        with torch.device(hardware.device):
            architecture = build_config(dict(config.options["config"]), tower)
            hf: Any = LlavaForConditionalGeneration._from_config(architecture, dtype=dtype)
        tokenizer = byte_tokenizer({})
        tokenizer.pad_token = tokenizer.eos_token  # the placeholder has the id of <pad>
    else:
        from himap.models.sentencepiece import SentencePieceTokenizer

        folder = checkpoint_folder(config.path, config.revision, BIN)
        architecture = build_config(read_config(folder), tower)
        tokenizer = SentencePieceTokenizer(folder)
        files = shards(folder)
        with torch.device("meta"):
            hf = LlavaForConditionalGeneration(architecture)
        load_weights(
            hf, files, partial(rename, n_positions=n_patches(tower) + 1), dtype=dtype, device=hardware.device
        )
    hf.eval()
    attend(hf, hardware)
    return InternVLChat(
        name=config.name,
        family="internvl_chat",
        hf=hf,
        processor=SimpleNamespace(tokenizer=tokenizer),
        image_token_ids=(PLACEHOLDER,),
        stop_token_ids=(tokenizer.eos_token_id,),
        n_image_tokens=n_patches(tower),
        image_processor=image_processor(config.options.get("aspect", "pad"), tower["image_size"], IMAGENET),
        bos=(tokenizer.bos_token_id,),
    )


def n_patches(tower: dict[str, int]) -> int:
    """Image tokens: one a patch."""
    return (tower["image_size"] // tower["patch_size"]) ** 2


def read_config(folder: Path) -> dict[str, Any]:
    """The published config.json, told from other LLaVAs by its fields.

    Raises:
        UserError: it describes another model.
    """
    from himap.models.hub import read_json

    content = read_json(folder, "config.json")
    known = {"mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch"}
    if "InternViT" not in str(content.get("mm_vision_tower")):
        raise UserError(
            f"model.path={folder}: mm_vision_tower={content.get('mm_vision_tower')}: is no "
            "InternVL-Chat-v1.0 (whose config.json names an InternViT)."
        )
    for key, value in known.items():
        if content.get(key) != value:
            raise UserError(f"model.path={folder}: {key}={content.get(key)}: this port knows {value} only.")
    return content


def build_config(content: dict[str, Any], tower: dict[str, int]) -> Any:
    """transformers' config from the published config.json and the tower's numbers."""
    from transformers import InternVLVisionConfig, LlamaConfig, LlavaConfig

    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "vocab_size",
        "max_position_embeddings",
        "bos_token_id",
        "eos_token_id",
    )
    text = LlamaConfig(
        **{name: content[name] for name in names},
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
    )
    sizes: dict[str, Any] = {**tower}
    sizes |= {name: [tower[name]] * 2 for name in ("image_size", "patch_size")}
    vision = InternVLVisionConfig(
        **sizes,
        norm_type="rms_norm",
        use_qk_norm=True,
        attention_bias=False,
        layer_norm_eps=1e-6,
        use_mean_pooling=True,  # no norm behind the last layer
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=PLACEHOLDER,
        image_seq_length=n_patches(tower),
        projector_hidden_act="gelu",
        vision_feature_layer=content["mm_vision_select_layer"],
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def rename(key: str, value: torch.Tensor, *, n_positions: int) -> Iterator[tuple[str, torch.Tensor]]:
    """A key of the published files -> keys of transformers' LLaVA.

    Args:
        key: as published.
        value: its tensor.
        n_positions: rows that the position table must have; another number is interpolated.
    """
    if key.endswith("rotary_emb.inv_freq"):
        return  # computed from the config
    if key.startswith(_PREFIX):
        name = key.removeprefix(_PREFIX)
        for old, new in _TOWER_KEYS.items():
            name = name.replace(old, new)
        name = f"model.vision_tower.{name}"
        if ".attn.qkv." in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                yield name.replace(".attn.qkv.", f".attention.{letter}_proj."), part
            return
        if name.endswith("position_embeddings") and value.shape[1] != n_positions:
            value = interpolate_positions(value, n_positions)
        yield name, value
    elif key.startswith("model.mm_projector."):
        number, _, rest = key.removeprefix("model.mm_projector.").partition(".")
        yield f"model.multi_modal_projector.{_PROJECTOR.get(number, number)}.{rest}", value
    elif key.startswith("model."):
        yield key.replace("model.", "model.language_model.", 1), value
    else:
        yield key, value


def interpolate_positions(table: torch.Tensor, n_positions: int) -> torch.Tensor:
    """Stretch a position table to another square grid, bicubically and in float32; the class row stays.

    Args:
        table: [1, 1 + g*g, D].
        n_positions: 1 + n*n.

    Returns:
        [1, n_positions, D] float32.
    """
    import torch

    before, after = round((table.shape[1] - 1) ** 0.5), round((n_positions - 1) ** 0.5)
    grid = table[:, 1:].float().reshape(1, before, before, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1].float(), grid.flatten(2).transpose(1, 2)], dim=1)
