"""The embedded model: a small LLaVA for drawn scenes, its tokenizer and its processor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.errors import UserError
from himap.models.base import Model
from himap.shapes import language
from himap.shapes.scene import COLOURS, SHAPES, SIDE, SIZES

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

    from himap.config import HardwareConfig, ModelConfig
    from himap.tasks.base import Prompt

PATCH = 8
"""Side of a patch in pixels; 96 x 96 pixels make 12 x 12 = 144 image tokens."""

MEAN, STD = 0.5, 0.5
"""Pixel statistics of the preprocessing, for values in [0, 1]."""

WEIGHTS = Path(__file__).parent.parent / "shapes" / "weights"
"""Folder of the shipped weights, tokenizer and processor."""

GRID = SIDE // PATCH
N_IMAGE_TOKENS = GRID * GRID
SYSTEM = "A chat about a picture."
# Sentences that hold every other word that a question or an answer can use.
_SENTENCES = (
    SYSTEM,
    language.CAPTION_REQUEST,
    language.CHOICE_REQUEST,
    "what colour is the object? what shape is the object? how many objects are there?",
    "is the object left or right of the object? above or below",
    "is there an object in the picture? yes no A. B. C. D.",
    "the picture shows a small object, and from top to bottom there is",
)
_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>", "USER:", "ASSISTANT:")


def vocabulary() -> list[str]:
    """All words of the drawn world, special tokens first, in a fixed order."""
    words = set(re.findall(r"\w+|[^\w\s]", " ".join(_SENTENCES)))
    words |= {*COLOURS, *SHAPES, *SIZES, *language.NUMBERS, *(language.plural(name) for name in SHAPES)}
    return [*_SPECIAL, *sorted(words)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer that puts <s> in front, as LLaMA's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # Joins words by one space and takes the space before a punctuation mark away.
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>", "USER:", "ASSISTANT:"],
        padding_side="left",
        model_max_length=1024,
    )


def build_processor() -> LlavaProcessor:
    """Tokenizer and image processor of the embedded model, made from code alone."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image_processor = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )


def build_model() -> LlavaForConditionalGeneration:
    """The architecture with fresh weights: CLIP tower of 4 layers, projector, Llama decoder of 12 layers."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    ids = {word: index for index, word in enumerate(vocabulary())}
    ends = {"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}
    special: dict[str, Any] = {name: ids[token] for name, token in ends.items()}
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="gelu",
    )
    text = LlamaConfig(
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=len(ids),
        max_position_embeddings=1024,
        **special,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids["<image>"],
        image_seq_length=N_IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        **special,
    )
    return LlavaForConditionalGeneration(config)


def format_prompt(text: str) -> str:
    """The user's text in the conversation that the model was trained on, with one image."""
    return f"{SYSTEM} USER: <image>\n{text} ASSISTANT:"


class Shapes(Model):
    """The embedded model."""

    def format(self, prompt: Prompt) -> str:
        return format_prompt(prompt.text)


def load(config: ModelConfig, hardware: HardwareConfig) -> Model:
    """The embedded model with the shipped weights, or those in the folder `model.path`.

    Raises:
        UserError: the folder has no weights.
    """
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor
    from transformers.utils.logging import disable_progress_bar

    # Its bar over the few weights would stand before the run's own.
    disable_progress_bar()
    hf: Any
    if config.weights == "random":
        torch.manual_seed(0)
        hf, processor = build_model(), build_processor()
    else:
        folder = Path(config.path) if config.path else WEIGHTS
        if not (folder / "model.safetensors").exists():
            raise UserError(f"model.path={folder}: no model.safetensors there (train it with `himap train`).")
        hf = LlavaForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        processor = LlavaProcessor.from_pretrained(folder, local_files_only=True)
    hf.to(hardware.device, getattr(torch, hardware.dtype)).eval()
    hf.set_attn_implementation({"text_config": hardware.attention})
    tokenizer = processor.tokenizer
    return Shapes(
        name=config.name,
        family="shapes",
        hf=hf,
        processor=processor,
        image_token_ids=(hf.config.image_token_id,),
        stop_token_ids=(tokenizer.eos_token_id,),
    )
