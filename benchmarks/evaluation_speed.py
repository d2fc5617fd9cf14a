"""Is an evaluation with HiMAP faster than one without? Same model, samples and process, in turns.

Prints seconds and their ratio, keeps benchmarks/results/evaluation_speed.json. The embedded model is small:
drawing, preprocessing and the vision tower, which pruning leaves alone, take a good part of the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from himap import models, tasks
from himap.config.compose import compose
from himap.config.schema import EvaluateConfig
from himap.evaluate import evaluate
from himap.files import write_json
from himap.result import environment

STRATEGIES = ("none", "fastv", "himap")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    configs = {name: compose("evaluate", EvaluateConfig, [f"pruning={name}"]) for name in STRATEGIES}
    config = configs["none"]
    config.task.limit = arguments.samples
    model, task = models.load(config.model, config.hardware), tasks.load(config.task)
    seconds: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    accuracy: dict[str, float] = {}
    share: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name in STRATEGIES:
            start = time.perf_counter()
            strategy = configs[name].pruning.strategy()
            result = evaluate(model, strategy, task, batch_size=config.hardware.batch_size)
            seconds[name].append(round(time.perf_counter() - start, 3))
            accuracy[name], share[name] = result.primary, result.flops["prefill_share"]
            print(f"{name}: {seconds[name][-1]:.1f} s, accuracy {result.primary:.1f}", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: round(medians[name] / medians["none"], 3) for name in STRATEGIES}
    content = {
        "samples": arguments.samples,
        "seconds": seconds,
        "ratio_to_none": ratios,
        "prefill_flops_share": share,
        "accuracy": accuracy,
        "environment": environment("cpu"),
    }
    print(ratios)
    write_json(Path(__file__).parent / "results" / "evaluation_speed.json", content)


if __name__ == "__main__":
    main()
