"""`himap flops` beside HiMAP's Table 1: true figures, printed ones, and the numbers that reproduce those."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from shrunk import configured

from himap.commands.flops import reproduced
from himap.config import FlopsConfig
from himap.errors import ConfigError

PAPER = ["llava_1_5_7b", "llava_1_5_13b", "qwen_vl_chat", "internvl_chat_v1_0"]
# models.md, part 3, to four digits.
FITS = {
    "llava_1_5_7b": (2.9861, 1.5660, 0.7353),
    "llava_1_5_13b": (5.8133, 3.0932, 1.3645),
    "qwen_vl_chat": (3.6003, 1.9003, 0.8933),
    "internvl_chat_v1_0": (2.7041, 1.3936, 0.5558),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_table_is_reproduced(name: str) -> None:
    table = configured(name).table1
    assert table is not None
    for strategy, fit in zip(("none", "fastv", "himap"), FITS[name], strict=True):
        found = reproduced(table, strategy)
        assert found is not None and round(found, 4) == fit
        # Printed with two digits, cut off or rounded; InternVL's 2.71 is the one that n = 448 misses by 0.01.
        steps = found * 100
        exact = {math.floor(steps), round(steps)}
        if (name, strategy) == ("internvl_chat_v1_0", "none"):
            exact = {271}
            assert steps == pytest.approx(271, abs=1)
        assert round(table.printed[strategy] * 100) in exact
    assert reproduced(table, "random") is None


@pytest.mark.parametrize("name", PAPER)
def test_the_command_prints_both(name: str, himap: Any) -> None:
    shown = " ".join(himap("flops", f"model={name}", "pruning=himap").out.split())
    table = configured(name).table1
    assert table is not None
    assert f"n={table.n_image}, d={table.hidden}, m={table.intermediate}" in shown
    for printed in (table.printed["none"], table.printed["himap"]):
        assert f" {printed:g} " in shown.replace("│", " ")


def test_the_true_figures_are_those_of_the_decoder() -> None:
    """models.md, part 3: Qwen 1.3057 / 0.6896 / 0.3242, InternVL as LLaVA-7B."""
    from himap.commands.flops import count
    from himap.config.compose import compose

    for name, expected in {"qwen_vl_chat": 0.3242, "internvl_chat_v1_0": 0.7353}.items():
        config = compose("flops", FlopsConfig, [f"model={name}", "pruning=himap"])
        assert round(count(config).flops["paper_tflops"], 4) == expected


def test_the_table_changes_no_answer() -> None:
    from himap.config import HardwareConfig, PruningConfig, TaskConfig, identity

    parts = (PruningConfig("none"), TaskConfig("t", "t", "s"), HardwareConfig("cpu", "cpu", "float32", 1))
    model = configured("qwen_vl_chat")
    assert identity(model, *parts) == identity(replace(model, table1=None), *parts)


def test_other_models_have_no_table() -> None:
    assert configured("qwen3_vl_8b").table1 is None
    with pytest.raises(ConfigError, match=r"model.table1.layer=0"):
        replace(configured("qwen_vl_chat").table1, layer=0)  # type: ignore[type-var]
