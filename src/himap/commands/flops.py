"""`himap flops`: what a strategy costs on a model, from the model's size alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from himap.commands.launch import launch
from himap.config import FlopsConfig, Table1Config
from himap.cost import cost
from himap.flops import DecoderShape, paper
from himap.result import Result, digest, environment
from himap.strategy import Stage, Strategy

_PROMPT = ("n_system", "n_image", "n_instruction")


def main(arguments: Sequence[str]) -> None:
    launch("flops", FlopsConfig, run, arguments)


def run(config: FlopsConfig, folder: Path) -> None:
    """Count both ways, print them beside the plain model, write result.json."""
    result = count(config)
    result.save(folder / "result.json")
    _print(config, result)
    print(folder / "result.json")


def count(config: FlopsConfig) -> Result:
    """The cost of the configured strategy for the model's typical prompt."""
    sizes = asdict(config.model.architecture)
    n_system, n_image, n_instruction = (sizes.pop(name) for name in _PROMPT)
    flops, kept = cost(
        DecoderShape(**sizes), config.pruning.strategy(), Counter({(n_system, n_image, n_instruction): 1})
    )
    return Result(
        model=config.model.name,
        pruning=config.pruning.name,
        flops=flops,
        kept=kept,
        config_sha256=digest(asdict(config)),
        environment=environment(),
        notes=[_fit(config.model.table1)] if config.model.table1 else [],
    )


def reproduced(table: Table1Config, pruning: str) -> float | None:
    """TFLOPs of the paper's formula with the numbers that fit Table 1; None for a strategy not in it."""
    later = {"none": [], "fastv": [(table.layer, 0.5)], "himap": [(table.layer, 0.5), (8, 0.75)]}.get(pruning)
    if later is None:
        return None
    # The formula asks how many tokens are kept, not which.
    stages = tuple(Stage(layer, drop, "uniform", name=f"stage{layer}") for layer, drop in later)
    shape = DecoderShape(table.n_layers, table.hidden, table.intermediate, 1, 1, 1, 1)
    return paper(shape, Strategy(pruning, stages), table.n_image)[0]


def _fit(table: Table1Config) -> str:
    return (
        f"HiMAP's Table 1 is reproduced by n={table.n_image}, d={table.hidden}, m={table.intermediate}, "
        f"L={table.n_layers}, K={table.layer}."
    )


def _print(config: FlopsConfig, result: Result) -> None:
    from rich.console import Console
    from rich.table import Table

    size = config.model.architecture
    plain = count(FlopsConfig(config.model, type(config.pruning)("none")))
    prompt = f"{size.n_system} + {size.n_image} + {size.n_instruction}"
    table = Table(title=f"{result.model}: {prompt} system, image and instruction tokens")
    for heading in ("strategy", "image tokens kept"):
        table.add_column(heading)
    for heading in ("TFLOPs (paper)", "share", "TFLOPs (prefill)", "share"):
        table.add_column(heading, justify="right")
    printed = config.model.table1
    if printed is not None:
        table.add_column("Table 1 prints", justify="right")
        table.add_column("reproduced", justify="right")
        table.caption = _fit(printed)
    for row in [plain, result] if result.kept else [plain]:
        kept = "\n".join(f"{n} after layer {layer}" for layer, n in row.kept) or f"{size.n_image}"
        beside = []
        if printed is not None:
            fit = reproduced(printed, row.pruning)
            beside = ["", ""] if fit is None else [f"{printed.printed[row.pruning]:g}", f"{fit:.3f}"]
        table.add_row(
            row.pruning,
            kept,
            f"{row.flops['paper_tflops']:.3f}",
            f"{row.flops['paper_share']:.1%}",
            f"{row.flops['prefill_tflops']:.3f}",
            f"{row.flops['prefill_share']:.1%}",
            *beside,
        )
    Console().print(table)
