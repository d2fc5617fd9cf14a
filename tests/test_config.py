"""Presets compose to what the paper says; a wrong override is one line with key, value and remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from himap.analysis.config import AnalyzeConfig
from himap.config import EvaluateConfig, FlopsConfig, HardwareConfig, identity, without_secrets
from himap.config.compose import compose
from himap.errors import UserError
from himap.paths import conf_dir

STRATEGIES = {
    "none": [],
    "fastv": [(2, 0.5, "last2img")],
    "fastv_paper": [(2, 0.5, "all2img")],
    "himap": [(2, 0.5, "img2txt"), (8, 0.75, "img2img")],
    "himap_caption": [(2, 0.5, "img2txt"), (15, 0.75, "img2img")],
    "img2txt": [(2, 0.5, "img2txt")],
    "img2img": [(2, 0.5, "img2img")],
    "img2txt_img2txt": [(2, 0.5, "img2txt"), (8, 0.75, "img2txt")],
    "img2txt_img2img": [(2, 0.5, "img2txt"), (8, 0.75, "img2img")],
    "random": [(2, 0.5, "random")],
    "uniform": [(2, 0.5, "uniform")],
    "fastv_13b": [(3, 0.5, "last2img")],
    "himap_13b": [(3, 0.5, "img2txt"), (8, 0.75, "img2img")],
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def flops(*overrides: str) -> FlopsConfig:
    return compose("flops", FlopsConfig, overrides)


def evaluate(*overrides: str) -> EvaluateConfig:
    return compose("evaluate", EvaluateConfig, overrides)


def analyze(*overrides: str) -> AnalyzeConfig:
    return compose("analyze", AnalyzeConfig, overrides)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_preset_has_the_stages_of_the_paper(name: str) -> None:
    strategy = flops(f"pruning={name}").pruning.strategy()
    assert strategy.name == name
    assert [(stage.layer, stage.drop, stage.criterion) for stage in strategy.stages] == STRATEGIES[name]
    assert [stage.name for stage in strategy.stages] == ["shallow", "deep"][: len(strategy.stages)]


def test_every_preset_is_tested() -> None:
    assert options("pruning") == sorted(STRATEGIES)


@pytest.mark.parametrize("group", ["model", "task", "hardware", "tracking", "experiment"])
def test_every_option_composes(group: str) -> None:
    assert options(group)
    for option in options(group):
        # A figure of the paper is an experiment of `himap analyze`.
        config = (analyze if option.startswith("fig") else evaluate)(f"{group}={option}")
        if group != "experiment":
            assert getattr(config, group).name == option


@pytest.mark.parametrize("name", ["llava_1_5_7b", "llava_1_5_13b"])
def test_a_model_has_the_published_size(name: str) -> None:
    size = flops(f"model={name}").model.architecture
    published = {"llava_1_5_7b": (32, 4096, 11008, 32), "llava_1_5_13b": (40, 5120, 13824, 40)}
    assert (size.n_layers, size.hidden, size.intermediate, size.n_heads) == published[name]
    assert size.n_heads * size.head_dim == size.hidden
    assert (size.n_system, size.n_image, size.n_instruction) == (35, 576, 60)


def test_one_value_of_a_stage_can_be_set() -> None:
    stages = flops("pruning.stages.shallow.layer=3", "pruning.stages.deep.normalise=true").pruning.stages
    assert stages["shallow"].layer == 3
    assert stages["deep"].normalise
    assert stages["deep"].layer == 8


def test_a_third_stage_can_be_added() -> None:
    third = "pruning.stages.third"
    config = flops(f"+{third}.layer=20", f"+{third}.drop=0.5", f"+{third}.criterion=uniform")
    assert config.pruning.strategy().kept(576) == [(2, 288), (8, 72), (20, 36)]


def test_an_experiment_sets_several_groups() -> None:
    config = flops("experiment=paper_13b")
    assert config.model.name == "llava_1_5_13b"
    assert config.pruning.stages["shallow"].layer == 3
    assert config.pruning.stages["deep"].layer == 8


def test_a_folder_of_ones_own_adds_options(tmp_path: Path) -> None:
    (tmp_path / "pruning").mkdir()
    (tmp_path / "pruning" / "mine.yaml").write_text(
        "defaults: [himap, _self_]\nname: mine\nstages: {deep: {layer: 9}}\n"
    )
    config = compose("flops", FlopsConfig, ["pruning=mine"], config_dir=tmp_path)
    assert config.pruning.strategy().kept(576) == [(2, 288), (9, 72)]


# "@" stands for "pruning.stages".
WRONG = {
    "pruning=himp": "pruning=himp: unknown; did you mean himap? (choose one of fastv,",
    "prunning=himap": "prunning=himap: unknown key; did you mean pruning?",
    "model.nmae=x": "model.nmae=x: unknown key; did you mean name? (known here: name, adapter,",
    "+model.foo=1": "model.foo=1: unknown key (choose one of name, adapter,",
    "model.options.foo=1": "model.options.foo=1: unknown key (known here: ",
    "@.deap.layer=9": "@.deap.layer=9: unknown stage; this strategy has shallow, deep",
    "@.deep.layer=x": "@.deep.layer=x: must be a whole number",
    "@.deep.layer=9.5": "@.deep.layer=9.5: must be a whole number",
    "@.deep.drop=half": "@.deep.drop=half: must be a number",
    "@.deep.normalise=3.5": "@.deep.normalise=3.5: must be true or false",
    "@.deep=9": "@.deep=9: must be keys with values (layer, drop, criterion,",
    "@.deep.layer=2": "@.deep.layer=2: must be greater than @.shallow.layer=2",
    "@.deep.layer=1": "@.deep.layer=1: must be greater than @.shallow.layer=2",
    "@.deep.layer=32": "@.deep.layer=32: must be below the model's 32 decoder layers (use",
    "@.shallow.layer=0": "@.shallow.layer=0: must be at least 1",
    "@.deep.drop=1": "@.deep.drop=1.0: must be in [0, 1)",
    "@.deep.drop=-0.1": "@.deep.drop=-0.1: must be in [0, 1)",
    "@.deep.drop=nan": "@.deep.drop=nan: must be in [0, 1)",
    "@.deep.criterion=img2tx": "@.deep.criterion=img2tx: unknown; did you mean img2txt?",
    "+@.third.layer=9": "@.third.drop=???: must be given",
    "model.architecture.n_layers=0": "model.architecture.n_layers=0: must be at least 1",
    "model.architecture.n_layers=null": "model.architecture.n_layers=null: must be a whole number",
    "model.weights=none": "model.weights=none: unknown (choose one of pretrained, random)",
    "pruning=fastv,himap": "pruning=fastv,himap: one value expected (add -m",
    "pruning=null": "pruning=null: an option must be chosen",
    "+pruning=himap": "+pruning=himap: already chosen (leave the + out)",
    "model.path=${oc.env:NO_SUCH_NAME}": "model.path: cannot be resolved: ",
    "model": "model: cannot be read; write key=value",
    "a b=,,": "a b=,,: cannot be read; write key=value",
    "hydra.run.dri=x": "hydra.run.dri=x: unknown key",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_override_is_one_line(override: str) -> None:
    with pytest.raises(UserError) as caught:
        flops(override.replace("@", "pruning.stages"))
    assert str(caught.value).startswith(WRONG[override].replace("@", "pruning.stages"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "task.limit=0",
        "task.limit=many",
        "task.on_bad_sample=ignore",
        "task.generation.num_beams=0",
        "hardware.device=gpu",
        "hardware.dtype=float8",
        "hardware.batch_size=0",
        "hardware.attention=flash",
        "hardware.n_threads=0",
        "tracking.name=wandb",
        "tracking.init_timeout_s=0",
        "tracking.tags=3",
    ],
)
def test_an_impossible_setting_names_its_key_and_value(override: str) -> None:
    with pytest.raises(UserError, match=rf"^{override}[.0]*: (must be|unknown)"):
        evaluate(override)


def test_identity_is_what_changes_numbers() -> None:
    config = evaluate("model=llava_1_5_7b")

    def of(hardware: HardwareConfig) -> dict[str, object]:
        return identity(config.model, config.pruning, config.task, hardware)

    before = of(config.hardware)
    assert of(replace(config.hardware, batch_size=1, n_threads=3, device="cuda")) == before
    assert of(replace(config.hardware, dtype="bfloat16")) != before
    assert identity(config.model, config.pruning, replace(config.task, limit=7), config.hardware) != before
    assert (
        identity(config.model, config.pruning, replace(config.task, on_bad_sample="fail"), config.hardware)
        == before
    )
    other = flops("pruning.stages.deep.drop=0.5").pruning
    assert identity(config.model, other, config.task, config.hardware) != before


def test_passwords_in_urls_are_left_out() -> None:
    settings = {"search": {"storage": "postgresql://me:secret@host/name", "list": ["https://host/a:b@c"]}}
    assert without_secrets(settings) == {
        "search": {"storage": "postgresql://me:***@host/name", "list": ["https://host/a:b@c"]}
    }


def test_conf_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIMAP_CONF", str(tmp_path))
    with pytest.raises(UserError, match="HIMAP_CONF="):
        conf_dir()
    (tmp_path / "evaluate.yaml").touch()
    assert conf_dir() == tmp_path.resolve()
