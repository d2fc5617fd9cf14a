"""Tiny checkpoints in the layouts in which the paper's models are published: files, keys, configs, tokens."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from shrunk import N_LAYERS, TOWER, configured, sharpen, shrink
from torch import Tensor

from himap.config import ModelConfig
from himap.models import native

SP_VOCAB = 420
SENTENCES = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ASSISTANT:",
    "What is in the picture? Is there a dog? Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly. A. B. C. D. yes no",
    "You are a helpful assistant. Picture 1: Describe the image in English: system user assistant Answer:",
]


@cache
def sentencepiece_model() -> bytes:
    """A tokenizer.model with LLaMA's settings: bytes for what is unknown, spaces kept, a space in front."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=written,
        model_type="bpe",
        vocab_size=SP_VOCAB,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
    )
    return written.getvalue()


def save_shards(
    tensors: dict[str, Tensor], folder: Path, n_shards: int, stem: str = "pytorch_model", suffix: str = "bin"
) -> None:
    """Shards and their index as on the hub."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    weight_map = {}
    for number in range(n_shards):
        file = f"{stem}-{number + 1:05d}-of-{n_shards:05d}.{suffix}"
        part = {name: tensors[name].contiguous() for name in names[number::n_shards]}
        weight_map.update(dict.fromkeys(part, file))
        if suffix == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def write_json(folder: Path, name: str, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content, indent=2))


def random_tensors(shapes: Iterable[tuple[str, tuple[int, ...]]], seed: int = 0) -> dict[str, Tensor]:
    """A value for each key: norms near one, the rest sharp enough for attention to prefer some tokens."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes:
        value = torch.randn(shape, generator=generator)
        if len(shape) == 1 and name.endswith("weight"):
            value = 1 + 0.1 * value
        elif len(shape) > 1:
            value *= 1.2 * value[0].numel() ** -0.5
        else:
            value *= 0.1
        made[name] = value.to(torch.bfloat16)
    return made


# LLaVA-1.5 as llava-hf publishes it.


def write_llava(folder: Path, name: str = "llava_1_5_7b") -> ModelConfig:
    """Safetensors in shards, a fast tokenizer with <image> at 32000 (here: behind the tiny vocabulary)."""
    from transformers import LlamaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    tokenizer = LlamaTokenizer.from_pretrained(folder, legacy=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"], "pad_token": "<pad>"})
    (folder / "tokenizer.model").unlink()
    tokenizer.save_pretrained(folder)
    config = configured(name)
    small = shrink(config.options["config"])
    small["image_token_id"] = tokenizer.convert_tokens_to_ids("<image>")
    config = replace(config, options={**config.options, "config": small})
    model = native.build_random(config, "cpu", "float32")
    sharpen(model)
    model.save_pretrained(folder, max_shard_size="100KB")
    return replace(config, path=str(folder))


# InternVL-Chat-v1.0 as OpenGVLab publishes it: 955 keys, LLaVA's original names.

INTERNVL_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": SP_VOCAB,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def internvl_shapes(
    *, d: int, m: int, n_layers: int, vocab: int, tower: dict[str, int], n_positions: int, head_dim: int
) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Keys and shapes of the published files."""
    yield from [
        ("lm_head.weight", (vocab, d)),
        ("model.embed_tokens.weight", (vocab, d)),
        ("model.norm.weight", (d,)),
    ]
    for layer in (f"model.layers.{i}." for i in range(n_layers)):
        yield from [(f"{layer}self_attn.{x}_proj.weight", (d, d)) for x in "qkvo"]
        yield from [(f"{layer}mlp.{x}_proj.weight", (m, d)) for x in ("gate", "up")]
        yield f"{layer}mlp.down_proj.weight", (d, m)
        yield from [(f"{layer}{x}_layernorm.weight", (d,)) for x in ("input", "post_attention")]
        yield f"{layer}self_attn.rotary_emb.inv_freq", (head_dim // 2,)
    w, n = tower["hidden_size"], tower["intermediate_size"]
    for number, width in (("0", w), ("2", d)):
        yield f"model.mm_projector.{number}.weight", (d, width)
        yield f"model.mm_projector.{number}.bias", (d,)
    prefix = "model.vision_tower.vision_tower."
    yield f"{prefix}embeddings.class_embedding", (1, 1, w)
    yield f"{prefix}embeddings.position_embedding", (1, n_positions, w)
    yield f"{prefix}embeddings.patch_embedding.weight", (w, 3, 14, 14)
    yield f"{prefix}embeddings.patch_embedding.bias", (w,)
    for block in (f"{prefix}encoder.layers.{i}." for i in range(tower["num_hidden_layers"])):
        yield from [(f"{block}{x}", (w,)) for x in ("ls1", "ls2", "norm1.weight", "norm2.weight")]
        yield from [(f"{block}attn.{x}_norm.weight", (w,)) for x in "qk"]
        yield from [(f"{block}attn.qkv.weight", (3 * w, w)), (f"{block}attn.proj.weight", (w, w))]
        yield from [(f"{block}attn.proj.bias", (w,)), (f"{block}mlp.fc1.weight", (n, w))]
        yield from [
            (f"{block}mlp.fc1.bias", (n,)),
            (f"{block}mlp.fc2.weight", (w, n)),
            (f"{block}mlp.fc2.bias", (w,)),
        ]


def write_internvl(folder: Path, n_positions: int = 577) -> ModelConfig:
    """Three .bin shards, tokenizer.model, the flat config.json of model_type llava."""
    shapes = internvl_shapes(
        d=32, m=48, n_layers=N_LAYERS, vocab=SP_VOCAB, tower=TOWER, n_positions=n_positions, head_dim=8
    )
    save_shards(random_tensors(shapes), folder, 3)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    write_json(
        folder,
        "config.json",
        {
            "architectures": ["LlavaLlamaForCausalLM"],
            "model_type": "llava",
            **INTERNVL_TEXT,
            "image_aspect_ratio": "pad",
            "mm_hidden_size": 3200,
            "mm_projector_type": "mlp2x_gelu",
            "mm_use_im_patch_token": False,
            "mm_use_im_start_end": False,
            "mm_vision_select_feature": "patch",
            "mm_vision_select_layer": -4,
            "mm_vision_tower": "OpenGVLab/InternViT-6B-224px",
            "use_mm_proj": True,
            "torch_dtype": "bfloat16",
        },
    )
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "legacy": False})
    config = configured("internvl_chat_v1_0")
    options = {
        **config.options,
        "tower": {**TOWER},
        "config": {**INTERNVL_TEXT, "mm_vision_select_layer": -4},
    }
    return replace(config, path=str(folder), options=options)


# Qwen-VL-Chat as Qwen publishes it: 853 keys, ten .bin shards, qwen.tiktoken.

QWEN_VISUAL = {
    "heads": 2,
    "image_size": 448,
    "layers": 2,
    "mlp_ratio": 4.9231,
    "output_dim": 128,
    "patch_size": 14,
    "width": 32,
}
QWEN_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 8192,
    "rotary_emb_base": 10000.0,
    "seq_length": 2048,
}


@cache
def tiktoken_ranks() -> dict[bytes, int]:
    """Byte-pair ranks over the sentences, bytes first, as tiktoken files have them."""
    words = [word.encode() for sentence in SENTENCES for word in sentence.replace(" ", "\n ").split("\n")]
    words += [b"<|im_start|>", b"system", b"assistant", b"user", b" Answer:", b"Picture"]
    ranks = {bytes([byte]): byte for byte in range(256)}
    split = [[word[i : i + 1] for i in range(len(word))] for word in words]
    while len(ranks) < 400:
        pairs = Counter(pair for parts in split for pair in pairwise(parts))
        best = max(sorted(pairs), key=pairs.__getitem__)
        ranks[best[0] + best[1]] = len(ranks)
        for parts in split:
            for i in range(len(parts) - 1, 0, -1):
                if i < len(parts) and (parts[i - 1], parts[i]) == best:
                    parts[i - 1 : i + 1] = [best[0] + best[1]]
    return ranks


def qwen_shapes(
    *, d: int, half_m: int, n_layers: int, vocab: int, visual: dict[str, Any]
) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Keys and shapes of the published files; `half_m` is the true width of the feed-forward network."""
    yield from [("lm_head.weight", (vocab, d)), ("transformer.wte.weight", (vocab, d))]
    yield "transformer.ln_f.weight", (d,)
    for layer in (f"transformer.h.{i}." for i in range(n_layers)):
        yield from [(f"{layer}attn.c_attn.weight", (3 * d, d)), (f"{layer}attn.c_attn.bias", (3 * d,))]
        yield f"{layer}attn.c_proj.weight", (d, d)
        yield from [(f"{layer}ln_{x}.weight", (d,)) for x in "12"]
        yield from [(f"{layer}mlp.w{x}.weight", (half_m, d)) for x in "12"]
        yield f"{layer}mlp.c_proj.weight", (d, half_m)
    w, out, patch = visual["width"], visual["output_dim"], visual["patch_size"]
    hidden = int(w * visual["mlp_ratio"])
    v = "transformer.visual."
    yield from [(f"{v}positional_embedding", (256, w)), (f"{v}proj", (out, out))]
    yield f"{v}conv1.weight", (w, 3, patch, patch)
    yield from [(f"{v}ln_pre.{x}", (w,)) for x in ("weight", "bias")]
    yield from [(f"{v}ln_post.{x}", (out,)) for x in ("weight", "bias")]
    for block in (f"{v}transformer.resblocks.{i}." for i in range(visual["layers"])):
        yield from [(f"{block}ln_{n}.{x}", (w,)) for n in "12" for x in ("weight", "bias")]
        yield from [(f"{block}attn.in_proj.weight", (3 * w, w)), (f"{block}attn.in_proj.bias", (3 * w,))]
        yield from [(f"{block}attn.out_proj.weight", (w, w)), (f"{block}attn.out_proj.bias", (w,))]
        yield from [(f"{block}mlp.c_fc.weight", (hidden, w)), (f"{block}mlp.c_fc.bias", (hidden,))]
        yield from [(f"{block}mlp.c_proj.weight", (w, hidden)), (f"{block}mlp.c_proj.bias", (w,))]
    pool = f"{v}attn_pool."
    yield from [(f"{pool}pos_embed", (256, out)), (f"{pool}query", (256, out))]
    yield from [(f"{pool}kv_proj.weight", (out, w)), (f"{pool}attn.in_proj_weight", (3 * out, out))]
    yield from [(f"{pool}attn.in_proj_bias", (3 * out,)), (f"{pool}attn.out_proj.weight", (out, out))]
    yield f"{pool}attn.out_proj.bias", (out,)
    yield from [(f"{pool}ln_{n}.{x}", (out,)) for n in ("q", "kv") for x in ("weight", "bias")]


def write_qwen(folder: Path) -> ModelConfig:
    """Ten .bin shards, qwen.tiktoken, and a config.json of model_type qwen with a `visual` block."""
    ranks = tiktoken_ranks()
    vocab = len(ranks) + 217 + 7  # the published table has rows to spare as well
    visual = {**QWEN_VISUAL, "image_start_id": len(ranks) + 214}
    shapes = qwen_shapes(d=128, half_m=48, n_layers=N_LAYERS, vocab=vocab, visual=visual)
    save_shards(random_tensors(shapes), folder, 10)
    lines = [b"%s %d" % (base64.b64encode(token), rank) for token, rank in ranks.items()]
    (folder / "qwen.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    text = {**QWEN_TEXT, "vocab_size": vocab}
    write_json(
        folder,
        "config.json",
        {
            "architectures": ["QWenLMHeadModel"],
            "model_type": "qwen",
            "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"},
            **text,
            "kv_channels": 32,
            "no_bias": True,
            "rotary_pct": 1.0,
            "use_dynamic_ntk": True,
            "use_logn_attn": True,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "visual": visual,
        },
    )
    write_json(
        folder, "tokenizer_config.json", {"model_max_length": 8192, "tokenizer_class": "QWenTokenizer"}
    )
    config = configured("qwen_vl_chat")
    return replace(config, path=str(folder), options={"config": {**text, "visual": visual}})
