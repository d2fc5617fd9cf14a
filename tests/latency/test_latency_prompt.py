"""Made-up prompts have exactly the sizes asked for, and the given features change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes import TinyModel, strategy
from shrunk import configured, loaded, picture
from tiny import IMAGE_ID
from writers import WRITERS

from himap.errors import UserError
from himap.execution import make
from himap.latency.prompt import answers, made_up
from himap.latency.released import Released
from himap.latency.shape import Shape
from himap.latency.tower import given_features
from himap.layout import Layout
from himap.models.base import Model
from himap.paths import conf_dir
from himap.strategy import Strategy
from himap.tasks.base import Prompt

HIMAP = strategy(shallow=(2, 0.5, "img2txt"), deep=(4, 0.75, "img2img"))
FAMILIES = {
    # Image tokens of one picture of the tiny checkpoint, or any number where the sides decide.
    "llava_1_5_7b": 16,
    "qwen2_5_vl_7b": 24,
    "llava_next_7b": 36,
}
LATER = {
    "idefics3_8b": 68,
    "internvl3_8b": 16,
    "internvl_chat_v1_0": 576,
    "llava_onevision_7b": 36,
    "mistral3_24b": 24,
    "qwen2_vl_7b": 24,
    "qwen3_vl_8b": 24,
    "qwen_vl_chat": 256,
    "shapes": 144,
    "smolvlm2_2b": 68,
}
ALIKE = {"llava_1_5_13b": "llava_1_5_7b", "llava_1b_random": "llava_1_5_7b", "internvl3_5_8b": "internvl3_8b"}


def test_no_model_is_left_out() -> None:
    assert {*FAMILIES, *LATER, *ALIKE} == {path.stem for path in (conf_dir() / "model").glob("*.yaml")}


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)])
@pytest.mark.parametrize("n_pictures", [1, 2])
def test_every_family_gets_prompts_of_exact_sizes(name: str, n_pictures: int, tmp_path: Path) -> None:
    model = loaded(WRITERS[configured(name).adapter](name, tmp_path / name))
    n_image = n_pictures * {**FAMILIES, **LATER}[name]
    shape = Shape(batch_size=2, n_system=7, n_image=n_image, n_instruction=90, n_new=3)
    inputs = made_up(model, shape, 0)
    layout = Layout.from_ids(inputs["input_ids"], model.image_token_ids, inputs.get("attention_mask"))
    assert layout.counts == [(7, n_image, 90)] * 2
    assert not layout.padding.any()
    one, other = inputs["input_ids"]
    assert (one == other).sum() < len(one), "rows must differ, or an index that skips the batch goes unseen"
    real = model.encode([Prompt("What is it?", (picture(),))])
    assert neighbours(model, inputs) == neighbours(model, real), "what marks an image stays beside it"
    check_given(model, inputs)


def neighbours(model: Model, inputs: dict[str, torch.Tensor]) -> tuple[int, int]:
    """The ids before a prompt's first image token and behind its last."""
    row = inputs["input_ids"][0].tolist()
    places = [place for place, number in enumerate(row) if number in model.image_token_ids]
    return row[places[0] - 1], row[places[-1] + 1]


def check_given(model: Model, inputs: dict[str, torch.Tensor]) -> None:
    """Features that are given are those that the tower would compute, pixel by pixel."""
    plain = logits(model, inputs)
    with given_features(model, inputs) as tower:
        assert torch.equal(logits(model, inputs), plain)
        pixels = {name: value for name, value in inputs.items() if name.startswith("pixel_values")}
        other = {**inputs, **{name: torch.ones_like(value) for name, value in pixels.items()}}
        assert torch.equal(logits(model, other), plain), "the tower ran again"
        assert tower() is not None
    assert not torch.equal(logits(model, other), plain)
    assert "get_image_features" not in vars(model.hf) and "get_image_features" not in vars(model.hf.model)


def logits(model: Model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    execution = make("eager", model, Strategy("none"), inputs, 0)
    found = execution.prefill(inputs)
    execution.close()
    return found


@pytest.mark.parametrize(("n_system", "n_instruction"), [(0, 1), (1, 9), (50, 40)])
def test_text_is_cut_or_filled(n_system: int, n_instruction: int) -> None:
    model = TinyModel()
    inputs = made_up(model, Shape(3, n_system, 32, n_instruction, 1), 0)
    layout = Layout.from_ids(inputs["input_ids"], model.image_token_ids)
    assert layout.counts == [(n_system, 32, n_instruction)] * 3
    assert inputs["attention_mask"].all()


def test_answers_are_plain_text_and_repeatable() -> None:
    model, shape = TinyModel(), Shape(4, 3, 16, 5, 500)
    found = answers(model, shape, 0)
    assert found.shape == (500, 4, 1)
    assert IMAGE_ID not in found and found.max() < 100
    assert torch.equal(found, answers(model, shape, 0))
    assert not torch.equal(found, answers(model, shape, 1))


def test_a_number_that_no_picture_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"^benchmark.n_image=20: tiny gives 16 image tokens a picture"):
        made_up(TinyModel(), Shape(1, 3, 20, 5, 1), 0)


def test_text_must_follow_the_image() -> None:
    with pytest.raises(UserError, match=r"^model.architecture.n_instruction=0: must be at least 1"):
        made_up(TinyModel(), Shape(1, 3, 16, 0, 1), 0)


def test_released_code_ranks_anew_with_every_token() -> None:
    """Its answers are those of whole prompts read without a cache, and the decoder is left as it was."""
    model = TinyModel()
    shape = Shape(2, 3, 16, 5, 3)
    inputs, later = made_up(model, shape, 0), answers(model, shape, 0)
    released = Released(model, HIMAP)
    assert model.text_config._attn_implementation == "eager"
    found = [released.prefill(inputs), released.step(later[0]), released.step(later[1])]
    again = released.prefill(inputs)
    released.close()
    assert model.text_config._attn_implementation == "sdpa"
    assert torch.equal(again, found[0]), "a prefill begins anew"
    for n_later, there in enumerate(found):
        grown = torch.cat([inputs["input_ids"], *later[:n_later]], dim=1)
        whole = {**inputs, "input_ids": grown, "attention_mask": torch.ones_like(grown)}
        execution = make("eager", model, HIMAP, whole, 0)
        assert torch.allclose(execution.prefill(whole), there, atol=1e-4)
        execution.close()


def test_released_code_returns_the_attention_of_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TinyModel()
    inputs = made_up(model, Shape(1, 3, 16, 5, 1), 0)
    seen = []
    model.hf.register_forward_hook(lambda module, args, output: seen.append(output))
    released = Released(model, HIMAP)
    released.prefill(inputs)
    released.close()
    (output,) = seen
    assert [weights.shape[-1] for weights in output.attentions] == [24, 24, 16, 16, 10, 10]
    assert output.past_key_values is None and output.logits.shape[1] == 10
