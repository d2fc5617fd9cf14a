"""Qwen-VL-Chat: transformers' Qwen2 decoder and a port of the visual module; no remote code.

Two forms of prompt: `chat` is the conversation that the chat model was tuned on, `raw` the bare completion
that the official evaluation uses for visual questions, multiple choice and captions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from himap.errors import UserError
from himap.models.qwen_vl_tokenizer import END_OF_TEXT, IM_END, IM_START, IMG, IMG_END, IMG_PAD
from himap.models.splice import Spliced

if TYPE_CHECKING:
    import torch

    from himap.config import HardwareConfig, ModelConfig
    from himap.models.base import Model
    from himap.tasks.base import Prompt

SYSTEM = "You are a helpful assistant."
_TEXT_KEYS = {
    "transformer.wte.": "model.embed_tokens.",
    "transformer.ln_f.": "model.norm.",
    "transformer.h.": "model.layers.",
    ".ln_1.": ".input_layernorm.",
    ".ln_2.": ".post_attention_layernorm.",
    ".attn.c_proj.": ".self_attn.o_proj.",
    # The original computes c_proj(w1(x) * silu(w2(x))).
    ".mlp.w2.": ".mlp.gate_proj.",
    ".mlp.w1.": ".mlp.up_proj.",
    ".mlp.c_proj.": ".mlp.down_proj.",
}


@dataclass
class QwenVLChat(Spliced):
    """Qwen-VL-Chat behind the project's interface.

    Attributes:
        numbered: whether a chat says "Picture 1: " before an image, as `chat` does for a list of parts; the
            official MME script does not.
        max_tokens: the longest prompt; beyond it the original rescales its rotary tables.
    """

    numbered: bool = True
    max_tokens: int = 2048

    def pieces(self, prompt: Prompt) -> list[str]:
        n = len(prompt.images)
        chat = prompt.form == "chat"
        heads = [f"Picture {i + 1}: {IMG}" if chat and self.numbered else IMG for i in range(n)]
        tail = f"{IMG_END}\n" if chat else IMG_END
        before, after = "", prompt.text
        if chat:
            before = f"{IM_START}system\n{SYSTEM}{IM_END}\n{IM_START}user\n"
            after = f"{prompt.text}{IM_END}\n{IM_START}assistant\n"
        edges = [*heads, after]
        return [before + edges[0], *(tail + edge for edge in edges[1:])]

    def ids(self, prompt: Prompt) -> list[int]:
        row = super().ids(prompt)
        if row.count(self.image_token_ids[0]) != len(prompt.images) * self.n_image_tokens:
            raise UserError(
                f"prompt: the text holds {IMG_PAD}, which stands for image tokens (leave it out)."
            )
        if len(row) > self.max_tokens:
            raise UserError(
                f"prompt: {len(row)} tokens; Qwen-VL-Chat is exact up to {self.max_tokens} only: beyond it "
                "the original changes its rotary tables (shorten the text or give fewer images)."
            )
        return row

    def option_ids(self, option: str, form: str) -> list[int]:
        # The official evaluation ranks " A", " B", ... behind "Answer:".
        return self.piece_ids(f" {option.strip()}" if form == "raw" else option.strip())

    def stop_for(self, form: str) -> tuple[int, ...]:
        tokenizer = self.processor.tokenizer
        names = (IM_END, IM_START, END_OF_TEXT) if form == "chat" else (END_OF_TEXT,)
        return tuple(tokenizer.convert_tokens_to_ids(name) for name in names)


def load(config: ModelConfig, hardware: HardwareConfig) -> Model:
    """Qwen-VL-Chat from its published files, or with random weights.

    Raises:
        UserError: the checkpoint is missing, incomplete or does not fit.
    """
    import torch
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from himap.models.checkpoint import load_weights
    from himap.models.hub import BIN, checkpoint_folder, shards
    from himap.models.llava import CLIP
    from himap.models.native import attend
    from himap.models.qwen_vl_model import QwenVLForCausalLM
    from himap.models.qwen_vl_tokenizer import load_tokenizer
    from himap.models.qwen_vl_visual import N_QUERIES

    dtype = getattr(torch, hardware.dtype)
    if config.weights == "random":
        from himap.models.processors import byte_tokenizer

        content = dict(config.options["config"])
        start = content["visual"]["image_start_id"]
        tokenizer = byte_tokenizer(
            {
                IMG: start,
                IMG_END: start + 1,
                IMG_PAD: start + 2,
                IM_START: None,
                IM_END: None,
                END_OF_TEXT: None,
            }
        )
        torch.manual_seed(0)
        with torch.device(hardware.device):
            hf: Any = QwenVLForCausalLM._from_config(build_config(content), dtype=dtype)
    else:
        folder = checkpoint_folder(config.path, config.revision, BIN)
        content = read_config(folder)
        tokenizer = load_tokenizer(folder)
        if tokenizer.convert_tokens_to_ids(IMG) != content["visual"]["image_start_id"]:
            raise UserError(f"model.path={folder}: qwen.tiktoken does not fit config.json's image_start_id.")
        files = shards(folder)
        with torch.device("meta"):
            hf = QwenVLForCausalLM(build_config(content))
        load_weights(hf, files, rename, dtype=dtype, device=hardware.device)
    hf.eval()
    attend(hf, hardware)
    side = content["visual"]["image_size"]
    return QwenVLChat(
        name=config.name,
        family="qwen_vl_chat",
        hf=hf,
        processor=SimpleNamespace(tokenizer=tokenizer),
        image_token_ids=(hf.config.image_token_id,),
        stop_token_ids=tuple(
            tokenizer.convert_tokens_to_ids(name) for name in (IM_END, IM_START, END_OF_TEXT)
        ),
        n_image_tokens=N_QUERIES,
        # Stretched to the square, neither cut nor filled up.
        image_processor=CLIPImageProcessorPil(
            size={"height": side, "width": side},
            do_center_crop=False,
            image_mean=list(CLIP[0]),
            image_std=list(CLIP[1]),
        ),
        numbered=bool(config.prompt.get("numbered", True)),
        max_tokens=content["seq_length"],
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The published config.json, told from the text-only Qwen by its `visual` block.

    Raises:
        UserError: it describes another model.
    """
    from himap.models.hub import read_json

    content = read_json(folder, "config.json")
    if content.get("model_type") != "qwen" or "visual" not in content:
        raise UserError(
            f"model.path={folder}: model_type={content.get('model_type')}: is no Qwen-VL-Chat (model_type "
            "qwen with a `visual` block)."
        )
    return content


def build_config(content: dict[str, Any]) -> Any:
    """transformers' Qwen2 config from the published config.json."""
    from transformers import Qwen2Config

    visual = content["visual"]
    ours: dict[str, Any] = {
        "visual": visual,
        # <imgpad>, two behind <img>; the original puts the bytes of the image's path there.
        "image_token_id": visual["image_start_id"] + 2,
    }
    return Qwen2Config(
        hidden_size=content["hidden_size"],
        # The published number counts both halves of the gated network.
        intermediate_size=content["intermediate_size"] // 2,
        num_hidden_layers=content["num_hidden_layers"],
        num_attention_heads=content["num_attention_heads"],
        num_key_value_heads=content["num_attention_heads"],
        rms_norm_eps=content["layer_norm_epsilon"],
        vocab_size=content["vocab_size"],
        max_position_embeddings=content["max_position_embeddings"],
        rope_parameters={"rope_type": "default", "rope_theta": float(content["rotary_emb_base"])},
        tie_word_embeddings=False,
        use_sliding_window=False,
        **ours,
    )


def rename(key: str, value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A key of the published files -> keys of `QwenVLForCausalLM`."""
    if key.startswith("transformer.visual."):
        yield key.removeprefix("transformer."), value
        return
    name = key
    for old, new in _TEXT_KEYS.items():
        name = name.replace(old, new)
    if ".attn.c_attn." in name:
        for letter, part in zip("qkv", value.chunk(3), strict=True):
            yield name.replace(".attn.c_attn.", f".self_attn.{letter}_proj."), part
    else:
        yield name, value
