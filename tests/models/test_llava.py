"""LLaVA-1.5 and InternVL-Chat-v1.0: token sequence, preprocessing, published key layout."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import bicubic
from PIL import Image
from published import internvl_shapes, sentencepiece_model, write_internvl
from shrunk import loaded, picture

from himap.errors import ConfigError, UserError
from himap.layout import Layout
from himap.models.base import Model
from himap.models.internvl_chat import TOWER, interpolate_positions
from himap.models.llava import CLIP, image_processor
from himap.models.splice import Spliced
from himap.tasks.base import Prompt

INTERNVL = "internvl_chat_v1_0"
each = pytest.mark.parametrize("name", ["llava_1_5_7b", INTERNVL])
VQA = "What is in the picture?\nAnswer the question using a single word or phrase."
CONVERSATION = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image>\nWho? ASSISTANT:"
)


def original_ids(prompt: str, image: list[int]) -> list[int]:
    """As the original code: the text around <image> tokenised apart, with one beginning of text."""
    from sentencepiece import SentencePieceProcessor

    sp = SentencePieceProcessor(model_proto=sentencepiece_model())
    chunks = [[1, *sp.encode(chunk)] for chunk in prompt.split("<image>")]
    row = chunks[0]
    for chunk in chunks[1:]:
        row = row + image + chunk[1:]
    return row


@each
def test_the_prompt_is_vicuna_v1(name: str, ready: Callable[[str], Model]) -> None:
    assert ready(name).format(Prompt("Who?", (picture(),))) == CONVERSATION


@each
def test_the_token_sequence_is_the_originals(name: str, ready: Callable[[str], Model]) -> None:
    model = ready(name)
    assert isinstance(model, Spliced)
    image = [model.image_token_ids[0]] * model.n_image_tokens
    found = model.encode([Prompt("Who?", (picture(),))])["input_ids"][0].tolist()
    assert found == original_ids(CONVERSATION, image)
    # A space stands before the image and another behind it, which joining the text first would swallow.
    from sentencepiece import SentencePieceProcessor

    sp = SentencePieceProcessor(model_proto=sentencepiece_model())
    space, line = sp.piece_to_id("▁"), sp.piece_to_id("<0x0A>")
    at = found.index(image[0])
    assert found[at - 1] == space
    assert found[at + len(image) : at + len(image) + 2] == [space, line]


class Vicuna:
    """Stands in for Vicuna's vocabulary: a token for each word and mark, two for "polite" and "USER", one for
    a space at the end; a line break takes the piece's own space and a token."""

    pad_token_id = 0

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        parts = re.findall(r"\w+|[^\w\s]|\n| $", text)
        return [5] * sum(2 if part in ("polite", "USER", "\n") else 1 for part in parts)


def test_the_image_sits_at_35_to_610_of_the_vqa_prompt(ready: Callable[[str], Model]) -> None:
    model = ready(INTERNVL)
    assert isinstance(model, Spliced)
    stand_in = replace(model, processor=SimpleNamespace(tokenizer=Vicuna()))
    batch = stand_in.encode([Prompt(VQA, (picture(),))])
    places = (
        Layout.from_ids(batch["input_ids"], stand_in.image_token_ids).image[0].nonzero().flatten().tolist()
    )
    assert places == list(range(35, 611))


@each
def test_a_batch_is_left_padded(name: str, ready: Callable[[str], Model]) -> None:
    model = ready(name)
    short, long = Prompt("Who?", (picture(),)), Prompt(VQA, (picture(),))
    both = model.encode([short, long])
    alone = model.encode([short])["input_ids"][0]
    assert torch.equal(both["input_ids"][0, -len(alone) :], alone)
    assert both["attention_mask"][0].tolist() == [0] * (both["input_ids"].shape[1] - len(alone)) + [1] * len(
        alone
    )


def by_hand(image: Image.Image, aspect: str, side: int, mean: Any, std: Any) -> np.ndarray:
    """LLaVA's own steps with PIL alone."""
    width, height = image.size
    if aspect == "pad":
        longest = max(width, height)
        square = Image.new("RGB", (longest, longest), tuple(int(channel * 255) for channel in mean))
        square.paste(image, ((longest - width) // 2, (longest - height) // 2))
        image = square
    scale = side / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return ((np.asarray(image, dtype=np.float64) / 255 - mean) / std).transpose(2, 0, 1)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("size", [(500, 375), (120, 300), (336, 336)])
@pytest.mark.parametrize("aspect", ["pad", "crop"])
@pytest.mark.parametrize(("statistics", "colour"), [(CLIP, (122, 116, 104)), (IMAGENET, (123, 116, 103))])
def test_preprocessing_is_the_originals(size: Any, aspect: str, statistics: Any, colour: Any) -> None:
    image = picture(1, size)
    found = image_processor(aspect, 336, statistics)([image], return_tensors="pt")["pixel_values"][0]
    np.testing.assert_allclose(found.numpy(), by_hand(image, aspect, 336, *statistics), atol=1e-5)
    assert tuple(int(channel * 255) for channel in statistics[0]) == colour


def test_an_unknown_aspect_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.options.aspect=squash: unknown"):
        image_processor("squash", 336, CLIP)


def test_internvls_full_size_layout_is_the_published_one() -> None:
    keys = dict(
        internvl_shapes(d=4096, m=11008, n_layers=32, vocab=32000, tower=TOWER, n_positions=577, head_dim=128)
    )
    assert len(keys) == 955
    weights = {key: shape for key, shape in keys.items() if not key.endswith("inv_freq")}
    assert 2 * sum(math.prod(shape) for shape in weights.values()) == 25_344_251_648
    tower = [math.prod(shape) for key, shape in keys.items() if "vision_tower" in key]
    assert sum(tower) == 5_903_817_600


def test_internvls_tower_equals_a_statement_in_numpy(
    ready: Callable[[str], Model], written: Callable[[str], Any]
) -> None:
    """Features: the fourth hidden state from the end, without the class token, through the projector."""
    hf = ready(INTERNVL).hf
    pixels = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = hf.get_image_features(pixels)
    found = getattr(ours, "pooler_output", ours)
    found = (found[0] if isinstance(found, list | tuple) else found).reshape(576, -1)
    files = sorted(Path(written(INTERNVL).path).glob("*.bin"))
    assert len(files) == 3
    p = {
        key: value.double().numpy()
        for file in files
        for key, value in torch.load(file, weights_only=True).items()
    }
    v = "model.vision_tower.vision_tower."

    def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    image = pixels[0].double().numpy()
    patches = image.reshape(3, 24, 14, 24, 14).transpose(1, 3, 0, 2, 4).reshape(576, -1)
    kernel = p[f"{v}embeddings.patch_embedding.weight"]
    x = patches @ kernel.reshape(len(kernel), -1).T + p[f"{v}embeddings.patch_embedding.bias"]
    x = (
        np.concatenate([p[f"{v}embeddings.class_embedding"][0], x])
        + p[f"{v}embeddings.position_embedding"][0]
    )
    for i in range(4 - 3):  # hidden_states[-4] of four blocks: behind the first
        b = f"{v}encoder.layers.{i}."
        q, k, value = np.split(norm(x, p[f"{b}norm1.weight"]) @ p[f"{b}attn.qkv.weight"].T, 3, axis=1)
        q, k = norm(q, p[f"{b}attn.q_norm.weight"]), norm(k, p[f"{b}attn.k_norm.weight"])  # before the heads
        out = np.zeros_like(x)
        for s in (slice(0, 16), slice(16, 32)):
            e = np.exp(q[:, s] @ k[:, s].T / 4)
            out[:, s] = e / e.sum(-1, keepdims=True) @ value[:, s]
        x = x + p[f"{b}ls1"] * (out @ p[f"{b}attn.proj.weight"].T + p[f"{b}attn.proj.bias"])
        hidden = gelu(norm(x, p[f"{b}norm2.weight"]) @ p[f"{b}mlp.fc1.weight"].T + p[f"{b}mlp.fc1.bias"])
        x = x + p[f"{b}ls2"] * (hidden @ p[f"{b}mlp.fc2.weight"].T + p[f"{b}mlp.fc2.bias"])
    projector = "model.mm_projector."
    x = gelu(x[1:] @ p[f"{projector}0.weight"].T + p[f"{projector}0.bias"])
    np.testing.assert_allclose(
        found.numpy(), x @ p[f"{projector}2.weight"].T + p[f"{projector}2.bias"], atol=2e-4
    )


def test_a_position_table_of_257_rows_is_stretched(tmp_path: Path) -> None:
    config = write_internvl(tmp_path / "internvl", n_positions=257)
    model = loaded(config)
    table = model.hf.model.vision_tower.embeddings.position_embeddings
    assert table.shape == (1, 577, 32)
    old = torch.randn(1, 257, 8, generator=torch.Generator().manual_seed(0))
    new = interpolate_positions(old, 577)
    assert torch.equal(new[0, 0], old[0, 0]), "the class token's row stays"
    np.testing.assert_allclose(new[0, 1:].numpy(), bicubic(old[0, 1:].double().numpy(), 16, 24), atol=1e-5)


def test_another_llava_is_not_taken_for_internvl(tmp_path: Path) -> None:
    config = write_internvl(tmp_path / "internvl")
    file = tmp_path / "internvl" / "config.json"
    file.write_text(file.read_text().replace("InternViT", "clip"))
    with pytest.raises(UserError, match="is no InternVL-Chat"):
        loaded(config)
