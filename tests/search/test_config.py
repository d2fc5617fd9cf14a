"""A wrong setting of a sweep is refused in one line, before anything is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import synthetic

from himap.errors import ConfigError
from himap.search.config import DropAxis, LayerAxis, SearchConfig
from himap.search.space import Space
from himap.strategy import Stage, Strategy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "search.trials=0"),
        ({"seeds": -1}, "search.seeds=-1"),
        ({"sampler": "tpee"}, "search.sampler=tpee: unknown; did you mean tpe?"),
        ({"flops": "real"}, "search.flops=real"),
        ({"storage": "postgres"}, "search.storage=postgres"),
        ({"heldout_limit": 0}, "search.heldout_limit=0"),
        ({"sampler": "grid", "axes": synthetic.axes(R1=DropAxis(0, 0.9))}, "search.axes.R1.step=null"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    settings.setdefault("axes", synthetic.axes())
    with pytest.raises(ConfigError) as caught:
        SearchConfig(**settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"K1": LayerAxis(0, 3)}, "search.axes.K1.low=0"),
        ({"K1": LayerAxis(4, 3)}, "search.axes.K1.high=3"),
        ({"R1": DropAxis(0, 1.0)}, "search.axes.R1.high=1.0"),
        ({"R1": DropAxis(-0.1, 0.5)}, "search.axes.R1.low=-0.1"),
        ({"R2": DropAxis(0.5, 0.4)}, "search.axes.R2.high=0.4"),
        ({"R2": DropAxis(0, 0.9, 0.2)}, "search.axes.R2.step=0.2"),
        ({"R2": DropAxis(0, 0.9, 0.0)}, "search.axes.R2.step=0.0"),
        ({"K1": LayerAxis(5, 6), "K2": LayerAxis(2, 5)}, "search.axes.K2.high=5"),
        ({"C1": ["img2text"]}, "search.axes.C1=img2text: unknown; did you mean img2txt?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_wrong_axes_are_named(axes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        synthetic.axes(**axes)
    assert str(caught.value).startswith(message)


def test_an_axis_beyond_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"search\.axes\.K2\.high=12: must be below the model's 12 layers"):
        synthetic.space(K2=LayerAxis(2, 12))


def test_a_template_of_one_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="pruning=fastv: a sweep searches two stages"):
        Space(synthetic.axes(), Strategy("fastv", (Stage(2, 0.5, "last2img"),)), 12, 144)


def test_the_settings_import_neither_torch_nor_optuna() -> None:
    code = (
        "import sys, himap.search.config, himap.search.space, himap.search.study, himap.search.outcome\n"
        "print([m for m in ('torch', 'optuna', 'wandb', 'transformers') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
