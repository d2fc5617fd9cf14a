"""How the native families lay images out in the sequence, each against a count by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from shrunk import loaded, picture

from himap.models.base import Model
from himap.models.pixtral import PixtralProcessor
from himap.tasks.base import Prompt

# Of a picture of 40 x 30 pixels: lengths of the runs of image tokens. A tile makes 4 x 4 tokens (SmolVLM and
# Idefics3: 2 x 2), a Qwen or Mistral token takes 8 x 8 pixels.
RUNS = {
    # Best of the grids is 2 x 2 tiles; unpadded to 6 rows of 8, a newline behind each; overview 16.
    "llava_next_7b": [6 * (8 + 1) + 16],
    # 3 x 2 tiles of 4 x 4, unpadded to 8 rows of 10; newlines; overview.
    "llava_onevision_7b": [8 * (10 + 1) + 16],
    # 4 x 3 tiles and a thumbnail, one behind the other.
    "internvl3_8b": [(4 * 3 + 1) * 16],
    "internvl3_5_8b": [(4 * 3 + 1) * 16],
    # 40 x 30 rounds to 5 x 4 tokens.
    "qwen2_vl_7b": [5 * 4],
    "qwen2_5_vl_7b": [5 * 4],
    "qwen3_vl_8b": [5 * 4],
    # 4 x 3 tiles, each announced by its row and column, and the whole picture.
    "smolvlm2_2b": [4] * (4 * 3 + 1),
    "idefics3_8b": [4] * (4 * 3 + 1),
    # A row of tokens, then a break.
    "mistral3_24b": [5] * 4,
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_image_tokens(name: str, ready: Callable[[str], Model]) -> None:
    model = ready(name)
    ids = model.encode([Prompt("What is it?", (picture(),))])["input_ids"][0]
    runs = [
        len(list(group))
        for same, group in groupby(ids.tolist(), lambda i: i in model.image_token_ids)
        if same
    ]
    assert runs == RUNS[name]


def test_mistrals_rows_end_in_breaks() -> None:
    assert PixtralProcessor.block(2, 3) == "[IMG][IMG][IMG][IMG_BREAK][IMG][IMG][IMG][IMG_END]"


def test_a_template_and_a_system_turn_from_the_yaml(written: Callable[[str], Any]) -> None:
    template = (
        "{% for m in messages %}<{{ m['role'] }}>{% for c in m['content'] %}{{ c['text'] or '[IMG]' }}"
        "{% endfor %}{% endfor %}"
    )
    config = replace(written("mistral3_24b"), prompt={"template": template, "system": "Be short."})
    model = loaded(config)
    assert model.format(Prompt("Who?", (picture(),))) == "<system>Be short.<user>[IMG]Who?"


@pytest.mark.parametrize("name", ["mistral3_24b", "qwen3_vl_8b"])
def test_random_weights_need_no_file(name: str, written: Callable[[str], Any]) -> None:
    """The same processor is built from the YAML alone."""
    model = loaded(replace(written(name), path="/nowhere", weights="random"))
    ids = model.encode([Prompt("What is it?", (picture(),))])["input_ids"][0].tolist()
    assert sum(number in model.image_token_ids for number in ids) == 20


def test_decoding_is_plain_whatever_the_checkpoint_samples(ready: Callable[[str], Model]) -> None:
    settings = ready("qwen2_5_vl_7b").hf.generation_config
    assert not settings.do_sample and settings.repetition_penalty in (None, 1.0)
