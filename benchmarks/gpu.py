"""What pruning saves on a GPU, in one command: LLaVA-1.5 7B and 13B at full size, random weights, bf16.

    python benchmarks/gpu.py [--parts 7b 13b axes released profile] [--seconds 420]

Strategies none, fastv and himap, each at its fastest execution, on prompts of 35 + 576 + 60 tokens at batch
1 and 16; more image tokens and longer answers; the released code's way of running; and where a prefill's time
goes. Each cell is kept in outputs/gpu when it is done: a call that ran out of time is repeated to go on. All
so far, with the goals beside it, is in $OUT/gpu.json (or benchmarks/results/gpu.json). Without CUDA the steps
run on the embedded model, to see that they work; those numbers say nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from himap import models
from himap.commands.benchmark import expand
from himap.config.compose import compose
from himap.errors import UserError
from himap.execution import make
from himap.files import write_json
from himap.hardware import prepare
from himap.latency.cell import n_steps
from himap.latency.config import BenchmarkConfig
from himap.latency.prompt import made_up
from himap.latency.run import cells, measure_all, missing
from himap.latency.shape import Shape
from himap.latency.tower import given_features
from himap.progress import bar
from himap.result import environment

CUDA = torch.cuda.is_available()
HERE = Path(__file__).parent
CELLS = HERE.parent / "outputs" / "gpu"
RESULT = Path(os.environ.get("OUT") or HERE / "results") / "gpu.json"
# himap's prefill as a share of the fastest unpruned one, by batch; scoring; memory against the baseline.
GOALS = {1: 0.42, 16: 0.38}
SCORING = 0.02

COMMON = ["pruning=none,fastv,himap", "tracking=none"]
SEVEN = ["model=llava_1_5_7b", "model.weights=random", "hardware=cuda", *COMMON]
THIRTEEN = ["model=llava_1_5_13b", "model.weights=random", "hardware=cuda", *COMMON]
TWO = "benchmark.batch_size=[1,16]"
PARTS = {
    "7b": [*SEVEN, TWO],
    "13b": [*THIRTEEN, TWO],
    "axes": [*SEVEN, "benchmark.n_image=[576,1152,2304]", "benchmark.n_new=[1,64]", "benchmark.rounds=10"],
    "released": [*SEVEN, "benchmark=released", "benchmark.n_new=[4]", "benchmark.rounds=10"],
}
SMALL = [*COMMON, "benchmark.rounds=6", "benchmark.warmup=1", "benchmark.n_new=[2]"]
SMALL_PARTS = {
    "7b": [*SMALL, "benchmark.batch_size=[1,2]"],
    "13b": SMALL,
    "axes": [*SMALL, "benchmark.n_image=[144,288]"],
    "released": [*SMALL, "benchmark=released", *SMALL[1:]],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "profile"], default=[*PARTS, "profile"])
    parser.add_argument("--seconds", type=float, default=420, help="begin nothing after so long")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    configs = {name: composed(name) for name in PARTS}
    for name in arguments.parts:
        if name == "profile":
            if time.monotonic() < end:
                write_json(CELLS / "profile.json", profiled(configs["7b"]))
        else:
            try:
                run(name, configs, end)
            except UserError as error:
                print(f"{name}: {error}", flush=True)
            gc.collect()  # the model of the part, before the next is built
            if CUDA:
                torch.cuda.empty_cache()
    for goal in write(configs)["goals"]:
        print(goal)
    print(RESULT)


def write(configs: dict[str, BenchmarkConfig]) -> dict[str, Any]:
    """Keep everything that has been measured until now."""
    profile = CELLS / "profile.json"
    content = {
        "environment": environment("cuda" if CUDA else "cpu"),
        "goals": [goal for name in ("7b", "13b") for goal in checked(name, configs[name])],
        "cells": {name: cells(config, CELLS / name) for name, config in configs.items()},
        "profile": json.loads(profile.read_text()) if profile.exists() else {},
    }
    write_json(RESULT, content)
    return content


def composed(part: str) -> BenchmarkConfig:
    return compose("benchmark", BenchmarkConfig, expand((PARTS if CUDA else SMALL_PARTS)[part]))


def run(part: str, configs: dict[str, BenchmarkConfig], end: float) -> None:
    """Measure the cells that a part lacks, while there is time."""
    config = configs[part]
    shapes = missing(config, CELLS / part)
    if not shapes or time.monotonic() > end:
        return
    prepare(config.hardware)
    started = time.monotonic()
    model = models.load(config.model, config.hardware)
    print(f"{config.model.name}: built in {time.monotonic() - started:.0f} s", flush=True)
    for shape in shapes:
        if time.monotonic() > end:
            break
        progress = bar(f"{part}, {shape.text}")
        progress.begin(n_steps(config.benchmark))
        measure_all(config, model, CELLS / part, [shape], progress)
        progress.end()
        write(configs)


def checked(part: str, config: BenchmarkConfig) -> Iterator[dict[str, Any]]:
    """The issue's goals beside what was measured; only the sizes that they were set for."""
    for cell in cells(config, CELLS / part):
        batch_size = cell["shape"]["batch_size"]
        none, himap = cell["strategies"]["none"], cell["strategies"]["himap"]
        if batch_size not in GOALS:
            continue
        ratio, scoring = himap["prefill_ms"]["ratio"]["median"], himap["scoring"]["share"]["median"]
        yield {
            "part": part,
            "batch_size": batch_size,
            "prefill": {"measured": ratio, "goal": GOALS[batch_size], "met": ratio <= GOALS[batch_size]},
            "flops_share": himap["flops"]["prefill_share"],
            "scoring": {"measured": scoring, "goal": SCORING, "met": scoring < SCORING},
            "peak_mib": {
                "measured": himap["peak_mib"],
                "goal": none["peak_mib"],
                "met": himap["peak_mib"] <= none["peak_mib"],
            },
        }


def profiled(config: BenchmarkConfig) -> dict[str, str]:
    """Where a prefill's time goes at batch 1: tables of operations, by their own time on the device."""
    prepare(config.hardware)
    model = models.load(config.model, config.hardware)
    size = config.model.architecture
    inputs = made_up(model, Shape(1, size.n_system, size.n_image, size.n_instruction, 1), 0)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if CUDA:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    found = {}
    with given_features(model, inputs):
        for name, pruning in config.benchmark.pruning.items():
            for kind in ("eager", "graphs") if CUDA else ("eager",):
                execution = make(kind, model, pruning.strategy(), inputs, 0)
                execution.prefill(inputs)
                with torch.profiler.profile(activities=activities) as profile:
                    for _ in range(5):
                        execution.prefill(inputs)
                    if CUDA:
                        torch.cuda.synchronize()
                order = "self_cuda_time_total" if CUDA else "self_cpu_time_total"
                found[f"{name}, {kind}"] = profile.key_averages().table(sort_by=order, row_limit=20)
                execution.close()
    return found


if __name__ == "__main__":
    main()
