"""What pruning saves on a GPU, in one command: LLaVA-1.5 7B and 13B at full size, random weights, bf16.

    python benchmarks/gpu.py [--parts 7b 13b profile compiled axes released] [--seconds 560]

Strategies none, fastv and himap, each at its fastest execution, on prompts of 35 + 576 + 60 tokens at batch
1 and 16; where a prefill's time goes; the same compiled; more image tokens and longer answers; the released
code's way of running. Each part is a process of its own: what fails or hangs there takes nothing from the
others, and is named at the end. When the seconds are over the part that runs is ended, too.

Each cell is kept in outputs/gpu when it is done: the same command again goes on with what is missing, also
from a result that an earlier call brought back from the same kind of GPU. All so far, with the goals beside
it, is in $OUT/gpu.json and $OUT/gpu_profile.txt (benchmarks/results where $OUT is not set). Without CUDA
the steps run on the embedded model, to see that they work, and stay in outputs/gpu_cpu; those numbers say
nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# A machine that is lent for an hour need not have himap installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import torch

from himap import models
from himap.answers import differences
from himap.commands.benchmark import expand
from himap.config.compose import compose
from himap.errors import UserError
from himap.execution import make
from himap.files import write_atomic, write_json
from himap.hardware import prepare
from himap.latency.cell import n_steps
from himap.latency.config import BenchmarkConfig
from himap.latency.prompt import made_up
from himap.latency.run import CELLS, cells, measure_all, missing
from himap.latency.shape import Shape
from himap.latency.tower import given_features
from himap.progress import bar
from himap.result import environment

CUDA = torch.cuda.is_available()
HERE = Path(__file__).resolve().parent
WORK = HERE.parent / "outputs" / ("gpu" if CUDA else "gpu_cpu")
OUT = Path(os.environ.get("OUT") or (HERE / "results" if CUDA else WORK))
# himap's prefill as a share of the fastest unpruned one, by batch; scoring; memory against the baseline.
GOALS = {1: 0.42, 16: 0.38}
SCORING = 0.02
# A part that has less than this left is not begun: its model would not be built.
LEAST_S = 30.0

COMMON = ["pruning=none,fastv,himap", "tracking=none"]
SEVEN = ["model=llava_1_5_7b", "model.weights=random", "hardware=cuda", *COMMON]
THIRTEEN = ["model=llava_1_5_13b", "model.weights=random", "hardware=cuda", *COMMON]
TWO = ["benchmark.batch_size=[1,16]", "benchmark.n_new=[8]", "benchmark.rounds=15"]
COMPILED = ["benchmark.execution=[graphs,compiled]", "benchmark.n_new=[1]", "benchmark.energy_s=0.5"]
PARTS = {
    "7b": [*SEVEN, *TWO],
    "13b": [*THIRTEEN, *TWO],
    "compiled": [*SEVEN, *TWO[:1], *COMPILED, "benchmark.rounds=15"],
    "axes": [*SEVEN, "benchmark.n_image=[576,1152,2304]", "benchmark.n_new=[1,64]", "benchmark.rounds=10"],
    "released": [*SEVEN, "benchmark=released", "benchmark.n_new=[4]", "benchmark.rounds=10"],
}
SMALL = [*COMMON, "benchmark.rounds=6", "benchmark.warmup=1", "benchmark.n_new=[2]"]
SMALL_PARTS = {
    "7b": [*SMALL, "benchmark.batch_size=[1,2]"],
    "13b": SMALL,
    "compiled": [*SMALL, "benchmark.execution=[eager,compiled]"],
    "axes": [*SMALL, "benchmark.n_image=[144,288]"],
    "released": [*SMALL, "benchmark=released", *SMALL[1:]],
}
ALL = ["7b", "13b", "profile", "compiled", "axes", "released"]
WITH_GOALS = ("7b", "13b", "compiled")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--seconds", type=float, default=560, help="end everything after so long")
    parser.add_argument("--part", choices=ALL, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        # What an execution broke on is worth its whole trace here.
        logging.basicConfig()
        logging.getLogger("himap.latency").setLevel(logging.DEBUG)
        work(arguments.part)
        return
    end = time.monotonic() + arguments.seconds
    configs = {name: composed(name) for name in PARTS}
    restore(configs)
    for part in arguments.parts:
        failed(part).unlink(missing_ok=True)
        left = end - time.monotonic()
        if left < LEAST_S:
            fail(part, "not begun, for the time was over")
        elif reason := process(part, left):
            fail(part, reason)
        show(write(configs), [part])
    show(write(configs), ALL)
    print(OUT / "gpu.json")


def process(part: str, seconds: float) -> str:
    """Run a part in a process of its own; why it ended early, or nothing."""
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, __file__, "--part", part], start_new_session=True)
    try:
        code = child.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"ended after {seconds:.0f} s, for the time was over"
    finally:
        if child.poll() is None:  # with the processes that compile for it
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)
    return f"its process ended with {code}" if code else ""


def work(part: str) -> None:
    """Everything that a part lacks; what fails is written down, and the rest goes on."""
    configs = {name: composed(name) for name in PARTS}
    try:
        if part == "profile":
            profile(configs["7b"])
        else:
            measure(part, configs)
    except Exception:
        fail(part, traceback.format_exc())


def measure(part: str, configs: dict[str, BenchmarkConfig]) -> None:
    config = configs[part]
    shapes = missing(config, WORK / part)
    if not shapes:
        return
    prepare(config.hardware)
    started = time.monotonic()
    model = models.load(config.model, config.hardware)
    print(f"{part}: {config.model.name} built in {time.monotonic() - started:.0f} s", flush=True)
    for shape in shapes:
        progress = bar(f"{part}, {shape.text}")
        progress.begin(n_steps(config.benchmark))
        try:
            measure_all(config, model, WORK / part, [shape], progress)
        except Exception as error:
            known = isinstance(error, UserError)
            fail(part, f"{shape.text}: {error if known else traceback.format_exc()}")
        progress.end()
        write(configs)


def profile(config: BenchmarkConfig) -> None:
    """Where a prefill's time goes at batch 1: tables of operations, by their own time on the device."""
    prepare(config.hardware)
    model = models.load(config.model, config.hardware)
    size = config.model.architecture
    inputs = made_up(model, Shape(1, size.n_system, size.n_image, size.n_instruction, 1), 0)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if CUDA:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    order = "self_device_time_total" if CUDA else "self_cpu_time_total"
    with given_features(model, inputs):
        for kind in ("graphs", "eager") if CUDA else ("eager",):
            for name, pruning in config.benchmark.pruning.items():
                try:
                    execution = make(kind, model, pruning.strategy(), inputs, 0)
                    execution.prefill(inputs)
                    with torch.profiler.profile(activities=activities) as found:
                        for _ in range(5):
                            execution.prefill(inputs)
                        if CUDA:
                            torch.cuda.synchronize()
                    text = found.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=80)
                    write_atomic(WORK / "profile" / f"{name}_{kind}.txt", f"{name}, {kind}\n{text}\n")
                    execution.close()
                except Exception:
                    fail("profile", f"{name}, {kind}: {traceback.format_exc()}")


def composed(part: str) -> BenchmarkConfig:
    return compose("benchmark", BenchmarkConfig, expand((PARTS if CUDA else SMALL_PARTS)[part]))


def restore(configs: dict[str, BenchmarkConfig]) -> None:
    """Take over cells of earlier results, where device and settings are the same."""
    here = _device(environment("cuda" if CUDA else "cpu"))
    for path in {OUT / "gpu.json", HERE / "results" / "gpu.json"}:
        before = json.loads(path.read_text())["cells"] if path.exists() else {}
        for part, found in before.items():
            wanted = json.loads(json.dumps(configs[part].identity())) if part in configs else None
            for cell in found:
                own = WORK / part / CELLS / f"{Shape(**cell['shape']).key}.json"
                same = wanted and not differences(cell["identity"], wanted)
                if same and _device(cell["environment"]) == here and not own.exists():
                    write_json(own, cell)


def _device(environment: dict[str, Any]) -> str:
    """Its name, without a number among several."""
    return str(environment["device"]).partition(" ")[2]


def failed(part: str) -> Path:
    return WORK / part / "failed.txt"


def fail(part: str, text: str) -> None:
    """Keep why something of a part is missing."""
    path = failed(part)
    print(f"{part}: {text}", flush=True)
    write_atomic(path, f"{path.read_text() if path.exists() else ''}{text.rstrip()}\n")


def write(configs: dict[str, BenchmarkConfig]) -> dict[str, Any]:
    """Keep everything that has been measured until now."""
    found: dict[str, list[dict[str, Any]]] = {}
    refused: dict[str, str] = {}
    for part, config in configs.items():
        try:
            found[part] = cells(config, WORK / part)
        except UserError as error:
            found[part], refused[part] = [], str(error)
    content = {
        "environment": environment("cuda" if CUDA else "cpu"),
        "goals": [goal for part in WITH_GOALS for goal in checked(part, found[part])],
        "failed": {part: failed(part).read_text() for part in ALL if failed(part).exists()} | refused,
        "cells": found,
    }
    write_json(OUT / "gpu.json", content)
    if tables := sorted((WORK / "profile").glob("*_*.txt")):
        write_atomic(OUT / "gpu_profile.txt", "\n".join(path.read_text() for path in tables))
    return content


def checked(part: str, found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The issue's goals beside what was measured; only the sizes that they were set for."""
    for cell in found:
        batch_size = cell["shape"]["batch_size"]
        none, himap = cell["strategies"]["none"], cell["strategies"]["himap"]
        if batch_size not in GOALS:
            continue
        yield {
            "part": part,
            "batch_size": batch_size,
            "executions": [row["prefill_ms"]["execution"] for row in (none, himap)],
            "none_ms": none["prefill_ms"]["median"],
            "flops_share": himap["flops"]["prefill_share"],
            "prefill": beside(himap["prefill_ms"]["ratio"], GOALS[batch_size]),
            "scoring": beside(himap["scoring"]["share"], SCORING),
            "peak_mib": {
                "measured": himap["peak_mib"],
                "goal": none["peak_mib"],
                "met": himap["peak_mib"] <= none["peak_mib"],
            },
        }


def beside(value: dict[str, float], goal: float) -> dict[str, Any]:
    """A measured median with its interval, and whether it is at most the goal."""
    interval = [value["low"], value["high"]]
    return {"measured": value["median"], "interval": interval, "goal": goal, "met": value["median"] <= goal}


def show(content: dict[str, Any], parts: Sequence[str]) -> None:
    """Print the goals of some parts beside what was measured, and what failed."""
    for goal in content["goals"]:
        if goal["part"] not in parts:
            continue
        kinds = " and ".join(goal["executions"])
        peak = goal["peak_mib"]
        print(f"{goal['part']}, batch {goal['batch_size']}:")
        print(f"  prefill {_said(goal['prefill'])} of none's {goal['none_ms']:.2f} ms ({kinds})")
        print(f"  FLOPs   {goal['flops_share']:.3f}")
        print(f"  scoring {_said(goal['scoring'])}")
        print(f"  peak    {peak['measured']:,.0f} MiB (none {peak['goal']:,.0f}, {_met(peak)})", flush=True)
    for part in parts:
        if part in content["failed"]:
            print(f"{part}: failed: {content['failed'][part].splitlines()[-1]}", flush=True)


def _met(value: dict[str, Any]) -> str:
    return "met" if value["met"] else "MISSED"


def _said(value: dict[str, Any]) -> str:
    low, high = value["interval"]
    return f"{value['measured']:.4f} [{low:.4f}, {high:.4f}] (goal {value['goal']}, {_met(value)})"


if __name__ == "__main__":
    main()
