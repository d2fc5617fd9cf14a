"""`himap benchmark`: strategies timed side by side -> result.json, latency.csv and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from himap.commands.launch import holding, launch
from himap.errors import ConfigError
from himap.files import write_json
from himap.latency.config import BenchmarkConfig
from himap.latency.shape import Shape
from himap.paths import conf_dir
from himap.result import Result, digest

_GROUP = "pruning@benchmark.pruning."
_NOTES = (
    "median of the rounds with its order-statistic interval (95 %); ratios are taken round by round",
    "first token and end to end add the vision tower and projector, timed apart: they are the same for all",
    "decoding finds the likeliest token but never waits to see whether it ends the answer",
    "scoring: the prefill less that of a double which keeps as many tokens without asking attention; as a "
    "share of the reference's prefill",
    "FLOPs shares are the decoder's",
)

Rows = Sequence[Sequence[Any]]


def main(arguments: Sequence[str]) -> None:
    launch("benchmark", BenchmarkConfig, run, expand(arguments))


def expand(arguments: Sequence[str]) -> list[str]:
    """Write `pruning=a,b,c` as Hydra's own choice of options: all in one process, the first the reference.

    Raises:
        ConfigError: the list is empty or names a strategy twice, or a key is set that counts elsewhere.
    """
    expanded: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "pruning":
            expanded += _chosen(argument, value)
        elif key == "hardware.batch_size":
            raise ConfigError(f"{argument}: is not read here (write benchmark.batch_size=[{value}]).")
        elif key.lstrip("+~").startswith("pruning."):
            known = key.lstrip("+~").removeprefix("pruning.")
            raise ConfigError(
                f"{argument}: several strategies are compared; say which one is meant "
                f"(benchmark.pruning.himap.{known}=...)."
            )
        else:
            expanded.append(argument)
    return expanded


def _chosen(argument: str, value: str) -> list[str]:
    names = [name.strip() for name in value.strip("[]").split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"{argument}: must name strategies, each once (pruning=none,fastv,himap).")
    given = _given()
    return [
        *(f"~{_GROUP}{name}" for name in given if name not in names),
        *(f"+{_GROUP}{name}={name}" for name in names if name not in given),
        f"benchmark.reference={names[0]}",
    ]


def _given() -> list[str]:
    """The strategies that conf/benchmark.yaml itself compares."""
    root: Any = OmegaConf.load(conf_dir() / "benchmark.yaml")
    entries = [next(iter(entry)) for entry in root.defaults if not isinstance(entry, str)]
    return [key.removeprefix(_GROUP) for key in entries if key.startswith(_GROUP)]


def run(config: BenchmarkConfig, folder: Path) -> None:
    """Measure what the folder lacks, write tables and figure into it, record and print.

    Raises:
        UserError: another run writes into the folder, or something cannot be measured.
    """
    with holding(folder):
        _run(config, folder)


def _run(config: BenchmarkConfig, folder: Path) -> None:
    from himap.latency.run import cells, missing
    from himap.latency.run import run as measure
    from himap.progress import bar
    from himap.report.latency import draw_latency, print_latency, table, write_csv

    if shapes := missing(config, folder):
        labels = ", ".join(config.benchmark.pruning)
        measure(config, folder, shapes, bar(f"{config.model.name}: {labels}"))
    measured = cells(config, folder)
    result = _result(config, measured)
    # One file for reports over many runs and for those who want every number.
    write_json(folder / "result.json", {**result.to_dict(), "cells": measured})
    write_csv(measured, folder / "latency.csv")
    figures = [folder / "latency.png", folder / "latency.pdf"]
    for figure in figures:
        draw_latency(measured, config.model.name, figure)
    _record(config, folder, result, figures[0], table(measured))
    print_latency(measured, config.model.name, result.notes[len(_NOTES) :])
    for path in (folder / "result.json", folder / "latency.csv", *figures):
        print(path)


def _result(config: BenchmarkConfig, measured: Sequence[dict[str, Any]]) -> Result:
    """The numbers of all cells, flat, under one model; what `himap report` lists of a benchmark."""
    metrics: dict[str, float | str | None] = {}
    for cell in measured:
        for name, row in cell["strategies"].items():
            place = f"{Shape(**cell['shape']).key}/{name}"
            for measure, value in row.items():
                if measure.endswith("_ms"):
                    metrics[f"{place}/{measure}"] = value["median"]
                    metrics[f"{place}/{measure.removesuffix('_ms')}_ratio"] = value["ratio"]["median"]
            metrics[f"{place}/prefill_flops_share"] = row["flops"]["prefill_share"]
            for measure in ("peak_mib", "kv_cache_mib", "energy_j"):
                metrics[f"{place}/{measure}"] = row[measure]
            if row["scoring"] is not None:
                metrics[f"{place}/scoring_share"] = row["scoring"]["share"]["median"]
    # The headline: what is left of the reference's prefill, for the last strategy in the first cell.
    last = [*measured[0]["strategies"].values()][-1]
    metrics |= {"primary": "prefill_ratio", "prefill_ratio": last["prefill_ms"]["ratio"]["median"]}
    notes = [note for cell in measured for note in cell["notes"]]
    refused = [f"{kind}: {why}" for cell in measured for kind, why in cell["refused"].items()]
    return Result(
        model=config.model.name,
        pruning=", ".join(config.benchmark.pruning),
        flops={},
        kept=[],
        config_sha256=digest(config.identity()),
        environment=measured[-1]["environment"],
        metrics=metrics,
        notes=list(dict.fromkeys([*_NOTES, *notes, *refused])),
    )


def _record(config: BenchmarkConfig, folder: Path, result: Result, figure: Path, rows: Rows) -> None:
    from himap import tracking

    tracker = tracking.create(config.tracking, folder)
    tracker.start(
        name=f"{result.model}-benchmark",
        group=config.tracking.group,
        config=asdict(config),
        job_type="benchmark",
    )
    tracker.log(tracking.numbers(result))
    columns, *values = rows
    tracker.log_table("latency", columns, values)
    tracker.log_image("latency", figure)
    tracker.finish()
