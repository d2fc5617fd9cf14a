"""The port of Qwen-VL-Chat against independent statements of its unusual parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import bicubic
from PIL import Image
from published import QWEN_VISUAL, qwen_shapes, tiktoken_ranks, write_qwen
from shrunk import loaded, picture

from himap.config import ModelConfig
from himap.errors import UserError
from himap.layout import Layout
from himap.models.base import Model
from himap.models.qwen_vl_chat import QwenVLChat, rename
from himap.models.qwen_vl_tokenizer import SPECIAL, load_tokenizer, recovered_merges
from himap.models.qwen_vl_visual import QwenVisual, sincos_positions, stretched
from himap.tasks.base import Generation, Prompt

NAME = "qwen_vl_chat"


@pytest.fixture
def model(ready: Callable[[str], Model]) -> Model:
    return ready(NAME)


def shards(config: ModelConfig) -> dict[str, torch.Tensor]:
    files = Path(config.path).glob("*.bin")
    return {k: v for file in files for k, v in torch.load(file, weights_only=True).items()}


def test_the_full_size_layout_is_the_published_one() -> None:
    visual = {**QWEN_VISUAL, "heads": 16, "layers": 48, "output_dim": 4096, "width": 1664}
    keys = dict(qwen_shapes(d=4096, half_m=11008, n_layers=32, vocab=151936, visual=visual))
    assert len(keys) == 853
    assert 2 * sum(math.prod(shape) for shape in keys.values()) == 19_313_870_336  # bytes of bfloat16


def test_the_published_vocabulary_puts_the_image_tokens_at_151857() -> None:
    ids = {token: 151643 + number for number, token in enumerate(SPECIAL)}
    assert (ids["<|im_start|>"], ids["<|im_end|>"], ids["<img>"], ids["</img>"], ids["<imgpad>"]) == (
        151644,
        151645,
        151857,
        151858,
        151859,
    )
    assert 151643 + len(SPECIAL) == 151860


def test_text_weights_go_where_the_original_uses_them(model: Model, written: Any) -> None:
    published = shards(written(NAME))
    layer = model.hf.model.layers[3]
    h = "transformer.h.3."
    q, k, v = published[f"{h}attn.c_attn.weight"].float().split(128)
    assert torch.equal(layer.self_attn.q_proj.weight, q)
    assert torch.equal(layer.self_attn.k_proj.weight, k)
    assert torch.equal(layer.self_attn.v_proj.weight, v)
    assert torch.equal(layer.self_attn.k_proj.bias, published[f"{h}attn.c_attn.bias"].float()[128:256])
    # The original: c_proj(w1(x) * silu(w2(x))).
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    w1, w2, c = (published[f"{h}mlp.{name}.weight"].float() for name in ("w1", "w2", "c_proj"))
    expected = ((x @ w1.T) * torch.nn.functional.silu(x @ w2.T)) @ c.T
    torch.testing.assert_close(layer.mlp(x), expected, atol=1e-5, rtol=1e-5)


def by_hand(w: dict[str, torch.Tensor], pixels: np.ndarray, heads: int, pool_heads: int) -> np.ndarray:
    """The visual module in numpy loops, from its published keys."""
    p = {
        key.removeprefix("transformer.visual."): v.double().numpy() for key, v in w.items() if "visual" in key
    }

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    # One row of patches after the other; the kernel as one matrix.
    patches = pixels.reshape(3, 32, 14, 32, 14).transpose(1, 3, 0, 2, 4).reshape(1024, -1)
    x = patches @ p["conv1.weight"].reshape(len(p["conv1.weight"]), -1).T
    x = norm(x + bicubic(p["positional_embedding"], 16, 32), "ln_pre")
    width = x.shape[1]
    hd = width // heads
    for i in range(QWEN_VISUAL["layers"]):
        b = f"transformer.resblocks.{i}."
        mixed = norm(x, f"{b}ln_1") @ p[f"{b}attn.in_proj.weight"].T + p[f"{b}attn.in_proj.bias"]
        out = np.zeros_like(x)
        for head in range(heads):
            of_head = mixed[:, head * 3 * hd : (head + 1) * 3 * hd]  # its query, key and value side by side
            q, k, v = of_head[:, :hd], of_head[:, hd : 2 * hd], of_head[:, 2 * hd :]
            out[:, head * hd : (head + 1) * hd] = softmax(q @ k.T / math.sqrt(hd)) @ v
        x = x + out @ p[f"{b}attn.out_proj.weight"].T + p[f"{b}attn.out_proj.bias"]
        hidden = gelu(norm(x, f"{b}ln_2") @ p[f"{b}mlp.c_fc.weight"].T + p[f"{b}mlp.c_fc.bias"])
        x = x + hidden @ p[f"{b}mlp.c_proj.weight"].T + p[f"{b}mlp.c_proj.bias"]
    value = norm(x @ p["attn_pool.kv_proj.weight"].T, "attn_pool.ln_kv")
    key = value + bicubic(p["attn_pool.pos_embed"], 16, 32)
    query = norm(p["attn_pool.query"], "attn_pool.ln_q") + p["attn_pool.pos_embed"]
    d = value.shape[1]
    w_in, b_in = p["attn_pool.attn.in_proj_weight"], p["attn_pool.attn.in_proj_bias"]
    q, k, v = (
        source @ w_in[i * d : (i + 1) * d].T + b_in[i * d : (i + 1) * d]
        for i, source in enumerate((query, key, value))
    )
    hd = d // pool_heads
    parts = [slice(h * hd, (h + 1) * hd) for h in range(pool_heads)]
    pooled = np.concatenate([softmax(q[:, s] @ k[:, s].T / math.sqrt(hd)) @ v[:, s] for s in parts], axis=1)
    pooled = pooled @ p["attn_pool.attn.out_proj.weight"].T + p["attn_pool.attn.out_proj.bias"]
    return norm(pooled, "ln_post") @ p["proj"]


def test_the_visual_module_equals_a_statement_in_numpy(model: Model, written: Any) -> None:
    pixels = torch.randn(1, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = model.hf.visual(pixels)
    expected = by_hand(shards(written(NAME)), pixels[0].double().numpy(), heads=2, pool_heads=1)
    assert ours.shape == (1, 256, 128)
    np.testing.assert_allclose(ours[0].numpy(), expected, atol=2e-4)


def test_positions_are_stretched_as_stated() -> None:
    table = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(
        stretched(table, 1024).numpy(), bicubic(table.double().numpy(), 16, 32), atol=1e-5
    )
    assert stretched(table, 256) is table


def test_the_resamplers_positions_are_sines_and_cosines_of_column_and_row() -> None:
    table, width = sincos_positions(16, 64), 64
    for place in (0, 1, 16, 37, 255):
        row, column = divmod(place, 16)
        for channel in range(width):
            coordinate = column if channel < 32 else row
            within = channel % 32
            angle = coordinate * 10000 ** (-(within % 16) / 16)
            value = math.sin(angle) if within < 16 else math.cos(angle)
            assert table[place, channel].item() == pytest.approx(value, abs=1e-6)
    assert torch.equal(
        QwenVisual({**QWEN_VISUAL, "layers": 1}).attn_pool.pos_embed, sincos_positions(16, 128)
    )  # type: ignore[typeddict-item]


def tiktoken_ids(text: str) -> list[int]:
    """tiktoken's algorithm on one word: merge the pair of the lowest rank until none is known."""
    ranks = tiktoken_ranks()
    parts = [bytes([byte]) for byte in text.encode()]
    while True:
        known = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not known:
            return [ranks[part] for part in parts]
        _, at = min(known)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is in the picture?", ["What", " is", " in", " the", " picture", "?"]),
        ("Is  it 42 o'clock?\n\n Yes", ["Is", " ", " it", " ", "4", "2", " o", "'clock", "?\n\n", " Yes"]),
        ("it's naïve 日本", ["it", "'s", " naïve", " 日本"]),
        ("e\u0301tude", ["\u00e9tude"]),  # NFC first
    ],
)
def test_the_tokenizer_gives_tiktokens_ids(model: Model, text: str, words: list[str]) -> None:
    expected = [number for word in words for number in tiktoken_ids(word)]
    assert model.processor.tokenizer.encode(text) == expected


def test_merges_come_back_in_order() -> None:
    ranks = {bytes([b]): b for b in range(256)} | {b"ab": 256, b"abc": 257, b"cd": 258, b"abcd": 259}
    assert list(recovered_merges(ranks)) == [(b"a", b"b"), (b"ab", b"c"), (b"c", b"d"), (b"abc", b"d")]


def span(model: Model, prompt: Prompt) -> tuple[int, int]:
    batch = model.encode([prompt])
    places = Layout.from_ids(batch["input_ids"], model.image_token_ids).image[0].nonzero().flatten()
    assert len(places) == 256 and places[-1] - places[0] == 255
    return int(places[0]), int(places[-1])


def test_the_image_sits_at_1_to_256_of_the_raw_prompt(model: Model) -> None:
    assert span(model, Prompt("What is it? Answer:", (picture(),), form="raw")) == (1, 256)
    assert model.format(Prompt("Who? Answer:", (picture(),), form="raw")) == "<img><image></img>Who? Answer:"


class Words:
    """Stands in for the published vocabulary, in which all words of the conversation are single tokens (the
    line break too); the special tokens are one token each as well."""

    pad_token_id = 0

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        import regex

        pattern = r"<\|[a-z_]+\|>|</?img>| ?\p{L}+|\p{N}|\s| ?[^\s\p{L}\p{N}]"
        return [10 + len(word) for word in regex.findall(pattern, text)]


@pytest.mark.parametrize(("numbered", "expected"), [(True, (20, 275)), (False, (15, 270))])
def test_the_image_sits_at_20_to_275_of_the_chat(
    model: Model, numbered: bool, expected: tuple[int, int]
) -> None:
    """With one token for each word of "system You are a helpful assistant. user Picture 1:", as published."""
    assert isinstance(model, QwenVLChat)
    stand_in = replace(model, processor=SimpleNamespace(tokenizer=Words()), numbered=numbered)
    row = stand_in.ids(Prompt("What is it?", (picture(),)))
    places = [place for place, number in enumerate(row) if number == model.image_token_ids[0]]
    assert (places[0], places[-1], len(places)) == (*expected, 256)


def test_the_chat_is_the_published_conversation(model: Model) -> None:
    assert model.format(Prompt("Who?", (picture(), picture()))) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Picture 1: <img><image></img>\nPicture 2: <img><image></img>\nWho?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_stop_tokens_depend_on_the_form(model: Model) -> None:
    first = len(tiktoken_ranks())  # <|endoftext|>, <|im_start|>, <|im_end|>
    assert set(model.stop_for("chat")) == {first, first + 1, first + 2}
    assert model.stop_for("raw") == (first,)


def test_an_answer_ends_at_its_forms_stop_token(model: Model) -> None:
    ids = model.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        weight = model.hf.lm_head.weight
        saved = weight[ids].clone()
        hidden = model.hf.model(**{k: v for k, v in model.encode([Prompt("Hm")]).items()}).last_hidden_state
        weight[ids] = 1e3 * hidden[0, -1]  # now it always wins
        try:
            batch = model.encode([Prompt("Hm")])
            stops = [
                model.hf.generate(
                    **batch, max_new_tokens=3, do_sample=False, eos_token_id=list(model.stop_for(f))
                )
                for f in ("chat", "raw")
            ]
        finally:
            weight[ids] = saved
    n = batch["input_ids"].shape[1]
    assert stops[0].shape[1] - n == 1
    assert stops[1].shape[1] - n > 1


def test_pixels_are_stretched_and_normalised(model: Model) -> None:
    image = picture(5, (60, 20))
    found = model.encode([Prompt("x", (image,))])["pixel_values"][0]
    square = np.asarray(image.resize((448, 448), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    np.testing.assert_allclose(found.numpy(), ((square - mean) / std).transpose(2, 0, 1), atol=1e-5)


def test_features_take_the_placeholders_places(model: Model) -> None:
    batch = model.encode([Prompt("x", (picture(1), picture(2))), Prompt("y", (picture(3),))])
    seen: dict[str, Any] = {}
    handle = model.hf.model.layers[0].register_forward_pre_hook(lambda _, args: seen.update(hidden=args[0]))
    try:
        with torch.no_grad():
            model.hf(**batch)
            features = model.hf.visual(batch["pixel_values"])
            words = model.hf.model.embed_tokens(batch["input_ids"])
    finally:
        handle.remove()
    image = batch["input_ids"] == model.image_token_ids[0]
    assert torch.equal(seen["hidden"][image], features.flatten(0, 1))
    assert torch.equal(seen["hidden"][~image], words[~image])


def test_a_prompt_above_2048_tokens_is_refused(model: Model) -> None:
    with pytest.raises(UserError, match="2048"):
        model.encode([Prompt("a dog " * 2000, (picture(),))])


def test_a_placeholder_in_the_text_is_refused(model: Model) -> None:
    with pytest.raises(UserError, match="<imgpad>"):
        model.encode([Prompt("What is <imgpad>?", (picture(),))])


def test_options_are_ranked_behind_a_space_as_officially(model: Model) -> None:
    assert model.option_ids("A", "raw") == model.processor.tokenizer.encode(" A")
    assert model.option_ids(" A", "raw") == model.processor.tokenizer.encode(" A")


def test_text_only_qwen_is_told_apart(tmp_path: Path) -> None:
    config = write_qwen(tmp_path / "qwen")
    file = tmp_path / "qwen" / "config.json"
    file.write_text(file.read_text().replace('"visual"', '"other"'))
    with pytest.raises(UserError, match="no Qwen-VL-Chat"):
        loaded(config)


def test_a_broken_tokenizer_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no qwen.tiktoken"):
        load_tokenizer(tmp_path)
    (tmp_path / "qwen.tiktoken").write_text("YQ== 0\nYg== 2\n")
    with pytest.raises(UserError, match="gaps"):
        load_tokenizer(tmp_path)


def test_generation_reads_the_images_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        model.hf.visual, "forward", lambda pixels: calls.append(1) or torch.zeros(1, 256, 128)
    )
    model.generate(model.encode([Prompt("x", (picture(),))]), Generation(max_new_tokens=3))
    assert len(calls) == 1


def test_unknown_keys_pass_through_to_be_reported() -> None:
    assert [name for name, _ in rename("transformer.h.0.what", torch.zeros(1))] == ["model.layers.0.what"]
