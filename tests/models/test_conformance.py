"""Every model of conf/model: load, prompt, layout, every strategy of conf/pruning, generate, FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
import torch
from shrunk import configured, picture
from transformers import AutoConfig
from writers import WRITERS

from himap.config import FlopsConfig
from himap.config.compose import compose
from himap.errors import ConfigError
from himap.flops import DecoderShape, count
from himap.layout import Layout
from himap.models import ADAPTERS, native, processors
from himap.models.base import Model
from himap.models.families import FAMILIES
from himap.paths import conf_dir
from himap.pruning import Pruner
from himap.strategy import Strategy
from himap.tasks.base import Generation, Prompt

MODELS = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml"))
STRATEGIES = sorted(file.stem for file in (conf_dir() / "pruning").glob("*.yaml"))
PROMPTS = [Prompt("Is there a dog?", (picture(0),)), Prompt("Say no, and nothing else at all.")]

NEEDS_PICTURE = {"shapes"}
"""Adapters whose conversation always has one picture."""

each_model = pytest.mark.parametrize("name", MODELS)


def prompts(name: str) -> list[Prompt]:
    """One prompt with a picture and a longer one without."""
    if configured(name).adapter in NEEDS_PICTURE:
        return [PROMPTS[0], replace(PROMPTS[1], images=PROMPTS[0].images)]
    return PROMPTS


def strategy(name: str) -> Strategy:
    return compose("flops", FlopsConfig, ["model=llava_1_5_7b", f"pruning={name}"]).pruning.strategy()


def test_no_adapter_is_left_out() -> None:
    assert set(WRITERS) == set(ADAPTERS) == {configured(name).adapter for name in MODELS}


@each_model
def test_it_loads_and_knows_its_prompt(name: str, ready: Callable[[str], Model]) -> None:
    model = ready(name)
    assert model.name == name
    assert "Is there a dog?" in model.format(PROMPTS[0])
    assert model.stop_token_ids and model.image_token_ids
    assert model.processor.tokenizer.pad_token_id is not None


@each_model
def test_the_layout_covers_the_prompt(name: str, ready: Callable[[str], Model]) -> None:
    model = ready(name)
    batch = model.encode(prompts(name))
    layout = Layout.from_ids(batch["input_ids"], model.image_token_ids, batch["attention_mask"])
    with_image, other = layout.counts
    assert with_image.n_image > 3 and with_image.n_instruction > 3
    assert other.n_image == len(prompts(name)[1].images) * with_image.n_image
    alone = model.encode(PROMPTS[:1])
    assert alone["input_ids"].shape[1] == with_image.n_tokens, "padding of one prompt alone"
    assert torch.isfinite(model.hf(**batch).logits[:, -1]).all()


@each_model
def test_every_strategy_prunes_it_and_it_answers(name: str, ready: Callable[[str], Model]) -> None:
    model = ready(name)
    batch = model.encode(prompts(name))
    layout = Layout.from_ids(batch["input_ids"], model.image_token_ids, batch["attention_mask"])
    n_image = layout.counts[0].n_image
    shape = DecoderShape.from_config(model.hf.config)
    whole = count(shape, Strategy("none"), *layout.counts[0]).prefill_tflops
    for option in STRATEGIES:
        chosen = strategy(option)
        if any(stage.layer >= shape.n_layers for stage in chosen.stages):
            with pytest.raises(ConfigError, match="decoder layers"):
                Pruner(model.hf, chosen, image_token_ids=model.image_token_ids)
            continue
        with Pruner(model.hf, chosen, image_token_ids=model.image_token_ids) as pruner:
            answers = model.generate(batch, Generation(max_new_tokens=2))
        assert len(answers) == 2
        kept = [(stage.layer, len(rows[0])) for stage, rows in zip(chosen.stages, pruner.kept, strict=True)]
        assert kept == [tuple(pair) for pair in chosen.kept(n_image)]
        flops = count(shape, chosen, *layout.counts[0])
        assert (flops.prefill_tflops < whole) == bool(chosen.stages)


@each_model
def test_it_ranks_options(name: str, ready: Callable[[str], Model]) -> None:
    model = ready(name)
    prompt = Prompt("Is there a dog?", (picture(0),), options=("yes", "no"))
    with Pruner(model.hf, strategy("fastv"), image_token_ids=model.image_token_ids):
        assert model.rank(model.encode([prompt]), [prompt])[0] in ("yes", "no")


@pytest.mark.parametrize("name", [name for name in MODELS if configured(name).adapter == "native"])
def test_n_image_is_that_of_a_picture_of_640_by_480(name: str) -> None:
    """With the full-size preprocessing, without any model."""
    fields = dict(configured(name).options["config"])
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    processor = processors.from_config(config)
    text = [f"{FAMILIES[config.model_type].image}What?"]
    ids = processor(text=text, images=[picture(0, (640, 480))], return_tensors="pt")["input_ids"]
    assert int((ids == config.image_token_id).sum()) == configured(name).architecture.n_image


@pytest.mark.parametrize("name", [name for name in MODELS if configured(name).options.get("config")])
def test_the_full_size_is_what_the_yaml_says(name: str) -> None:
    """On the meta device, where a 24B takes no memory: `architecture` is that of the model which is built."""
    config = configured(name)
    if config.adapter == "internvl_chat":
        from himap.models.internvl_chat import TOWER, build_config

        built = build_config(config.options["config"], TOWER)
    elif config.adapter == "qwen_vl_chat":
        from himap.models.qwen_vl_chat import build_config as build

        built = build(config.options["config"])
    else:
        built = native.build_random(config, "meta", "bfloat16").config
    size = asdict(config.architecture)
    assert asdict(DecoderShape.from_config(built)) == {key: size[key] for key in size if key[:2] != "n_"} | {
        key: size[key] for key in ("n_layers", "n_heads", "n_kv_heads")
    }
