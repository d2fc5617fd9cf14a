"""Native families: how each one's processor is put together. A new family is one entry here and a YAML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """How a family's processor is put together.

    Attributes:
        processor: its class, `module:Class` below transformers.models or of himap.
        image_processor: the class on PIL, likewise.
        image: what a chat template writes for one image.
        tokens: special tokens and the ids they have in a config: a key of it, or None for any free id.
        images: a config -> arguments of the image processor.
        sizes: a config -> arguments of the processor.
        attributes: names under which the processor looks for a token at the tokenizer.
    """

    processor: str
    image_processor: str
    image: str
    tokens: dict[str, str | None]
    images: Callable[[Any], dict[str, Any]]
    sizes: Callable[[Any], dict[str, Any]] = lambda config: {}
    attributes: dict[str, str] | None = None


def _anyres(config: Any, square: bool) -> dict[str, Any]:
    side = config.vision_config.image_size
    size = {"height": side, "width": side}
    pinpoints = {"image_grid_pinpoints": config.image_grid_pinpoints}
    if square:  # SigLIP's statistics
        return {"size": size, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **pinpoints}
    return {"size": {"shortest_edge": side}, "crop_size": size, **pinpoints}


def _qwen_images(config: Any) -> dict[str, Any]:
    vision = config.vision_config
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if config.model_type == "qwen3_vl" else {}
    # The published bounds: at least 4 x 4 and at most 1,280 tokens of patch x merge pixels squared.
    side = vision.patch_size * vision.spatial_merge_size
    return {
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "size": {"shortest_edge": 16 * side**2, "longest_edge": 1280 * side**2},
        **statistics,
    }


def _tiles(config: Any) -> dict[str, Any]:
    side = config.vision_config.image_size
    return {"size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}}


def _tile_tokens(config: Any) -> dict[str, Any]:
    patches = config.vision_config.image_size // config.vision_config.patch_size
    return {"image_seq_len": patches**2 // config.scale_factor**2}


_QWEN_TOKENS: dict[str, str | None] = {
    "<|vision_start|>": "vision_start_token_id",
    "<|vision_end|>": "vision_end_token_id",
    "<|image_pad|>": "image_token_id",
    "<|video_pad|>": "video_token_id",
}
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_IDEFICS = {
    "image": "<image>",
    "tokens": {
        "<image>": "image_token_id",
        "<fake_token_around_image>": None,
        "<global-img>": None,
        "<end_of_utterance>": None,
        **{f"<row_{row}_col_{column}>": None for row in range(1, 7) for column in range(1, 7)},
    },
    "images": _tiles,
    "sizes": _tile_tokens,
}

FAMILIES: dict[str, Family] = {
    "llava_next": Family(
        "llava_next.processing_llava_next:LlavaNextProcessor",
        "llava_next.image_processing_pil_llava_next:LlavaNextImageProcessorPil",
        image="<image>\n",
        tokens={"<image>": "image_token_id"},
        images=lambda config: _anyres(config, square=False),
        sizes=lambda config: {
            "patch_size": config.vision_config.patch_size,
            "vision_feature_select_strategy": config.vision_feature_select_strategy,
            "num_additional_image_tokens": 1,  # CLIP's class token
        },
    ),
    "llava_onevision": Family(
        "llava_onevision.processing_llava_onevision:LlavaOnevisionProcessor",
        "llava_onevision.image_processing_pil_llava_onevision:LlavaOnevisionImageProcessorPil",
        image="<image>\n",
        tokens={"<image>": "image_token_id", "<video>": "video_token_id"},
        images=lambda config: _anyres(config, square=True),
        sizes=lambda config: {
            "num_image_tokens": (config.vision_config.image_size // config.vision_config.patch_size) ** 2,
            "vision_feature_select_strategy": config.vision_feature_select_strategy,
            "vision_aspect_ratio": config.vision_aspect_ratio,
        },
    ),
    "internvl": Family(
        "internvl.processing_internvl:InternVLProcessor",
        "got_ocr2.image_processing_pil_got_ocr2:GotOcr2ImageProcessorPil",
        image="<IMG_CONTEXT>\n",
        tokens={"<IMG_CONTEXT>": "image_token_id", "<img>": None, "</img>": None, "<video>": None},
        images=lambda config: {
            "size": dict(zip(("height", "width"), config.vision_config.image_size, strict=True)),
            "crop_to_patches": True,
            "min_patches": 1,
            "max_patches": 12,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
        sizes=lambda config: {"image_seq_length": config.image_seq_length},
        attributes={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "qwen2_vl": Family(
        "qwen2_vl.processing_qwen2_vl:Qwen2VLProcessor",
        "qwen2_vl.image_processing_pil_qwen2_vl:Qwen2VLImageProcessorPil",
        image=_QWEN_IMAGE,
        tokens=_QWEN_TOKENS,
        images=_qwen_images,
    ),
    "qwen2_5_vl": Family(
        "qwen2_5_vl.processing_qwen2_5_vl:Qwen2_5_VLProcessor",
        "qwen2_vl.image_processing_pil_qwen2_vl:Qwen2VLImageProcessorPil",
        image=_QWEN_IMAGE,
        tokens=_QWEN_TOKENS,
        images=_qwen_images,
    ),
    "qwen3_vl": Family(
        "qwen3_vl.processing_qwen3_vl:Qwen3VLProcessor",
        "qwen2_vl.image_processing_pil_qwen2_vl:Qwen2VLImageProcessorPil",
        image=_QWEN_IMAGE,
        tokens=_QWEN_TOKENS,
        images=_qwen_images,
    ),
    "idefics3": Family(
        "idefics3.processing_idefics3:Idefics3Processor",
        "idefics3.image_processing_pil_idefics3:Idefics3ImageProcessorPil",
        **_IDEFICS,  # type: ignore[arg-type]
    ),
    "smolvlm": Family(
        "idefics3.processing_idefics3:Idefics3Processor",
        "smolvlm.image_processing_pil_smolvlm:SmolVLMImageProcessorPil",
        **_IDEFICS,  # type: ignore[arg-type]
    ),
    "mistral3": Family(
        "himap.models.pixtral:PixtralProcessor",
        "pixtral.image_processing_pil_pixtral:PixtralImageProcessorPil",
        image="[IMG]",
        tokens={"[IMG]": "image_token_id", "[IMG_BREAK]": None, "[IMG_END]": None},
        images=lambda config: {
            "patch_size": config.vision_config.patch_size,
            "size": {"longest_edge": config.vision_config.image_size},
        },
        sizes=lambda config: {
            "patch_size": config.vision_config.patch_size,
            "spatial_merge_size": config.spatial_merge_size,
        },
    ),
}
