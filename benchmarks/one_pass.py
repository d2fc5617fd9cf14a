"""How much faster are 64 configurations in one pass than one by one, and do they answer the same?

Two sets on the embedded model: 64 configurations that a sweep with the default sampler asked for (the sweep
runs first, on few samples), and 64 that share the paper's first stage. Each set is evaluated in one pass, in
groups of 16, separately in the same warm process, and (a few of them) with a process for each. All answers
must be equal, logits up to 1e-5. Keeps benchmarks/results/one_pass.json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from himap import models, tasks
from himap.branching import Branches
from himap.commands.sweep import SweepConfig, plan
from himap.config.compose import compose
from himap.evaluate import evaluate
from himap.files import write_json
from himap.hardware import prepare
from himap.models.base import Model
from himap.positions import prompt_positions
from himap.progress import bar
from himap.pruning import Pruner
from himap.result import Result, environment
from himap.reuse import Reuse
from himap.search.model import ModelEvaluator
from himap.search.study import run
from himap.search.trials import TrialStore
from himap.strategy import Stage, Strategy
from himap.tasks.base import Task
from himap.together import Request, evaluate_together

N = 64
Answers = list[list[str]]


def asked_for(overrides: Sequence[str]) -> list[Strategy]:
    """The configurations of a sweep, in the order of its trials."""
    config = compose("sweep", SweepConfig, [*overrides, f"search.trials={N}", "search.heldout_points=0"])
    with tempfile.TemporaryDirectory() as folder:
        evaluator = ModelEvaluator(config.model, config.task, config.hardware, heldout_limit=1)
        sweep = plan(config)
        run(sweep, Path(folder), evaluator)
        records = [record for record in TrialStore(Path(folder)).records() if record.copy_of is None]
    return [sweep.space.strategy(record.params) for record in records][:N]


def same_start(n_layers: int) -> list[Strategy]:
    """Different second stages behind the paper's first."""
    rng = random.Random(0)
    first = Stage(2, 0.5, "img2txt", name="shallow")
    seconds = {(rng.randrange(3, n_layers), rng.randrange(20) * 5) for _ in range(10 * N)}
    chosen = rng.sample(sorted(seconds), N)
    return [
        Strategy(f"K2={layer} R2={drop} %", (first, Stage(layer, drop / 100, "img2img", name="deep")))
        for layer, drop in chosen
    ]


def answers_of(paths: Sequence[Path]) -> Answers:
    return [[json.loads(line)["text"] for line in path.read_text().splitlines()] for path in paths]


def evaluated(
    model: Model, task: Task, strategies: Sequence[Strategy], batch_size: int, group: int
) -> tuple[float, Answers]:
    """Seconds and answers; `group` strategies a pass, features kept between passes; 0: each on its own."""
    reuse = Reuse(2048)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}" / "answers.jsonl" for number in range(len(strategies))]
        requests = [Request(one, path) for one, path in zip(strategies, paths, strict=True)]
        start = time.perf_counter()
        if group == 0:
            for request in requests:
                path = request.answers_path
                evaluate(model, request.strategy, task, batch_size=batch_size, answers_path=path)
        else:
            for first in range(0, len(requests), group):
                part = requests[first : first + group]
                found = evaluate_together(model, part, task, batch_size=batch_size, reuse=reuse)
                assert all(isinstance(one, Result) for one in found), found
        return time.perf_counter() - start, answers_of(paths)


def seconds_of_a_process(strategy: Strategy, overrides: Sequence[str]) -> float:
    """Seconds of `himap evaluate` from its start to its end."""
    stages = [
        f"pruning.stages.{stage.name}.{key}={value}"
        for stage in strategy.stages
        for key, value in (("layer", stage.layer), ("drop", stage.drop))
    ]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "himap", "evaluate", *overrides, *stages, f"hydra.run.dir={folder}"]
        start = time.perf_counter()
        subprocess.run([*command, "tracking=none"], check=True, capture_output=True)
        return time.perf_counter() - start


def logits(model: Model, task: Task, strategies: Sequence[Strategy]) -> dict[str, float]:
    """Of the logits behind one batch of prompts: one pass against a pruner for each, and what pruning does.

    The second number says that the first compares something: without it, equal could mean unpruned.
    """
    prompts = [task.prompt(sample, model.family) for sample in task.samples()[:16]]
    inputs = model.encode(prompts)
    positions = prompt_positions(model.hf, inputs["attention_mask"])
    difference = effect = 0.0
    with torch.inference_mode():
        plain = model.hf(**inputs, **positions, logits_to_keep=1).logits[:, -1].float()
        with Branches(model.hf, strategies, image_token_ids=model.image_token_ids) as branches:
            together = {i: leaf.logits for leaf in branches.run(inputs) for i in leaf.strategies}
        for number, strategy in enumerate(strategies):
            with Pruner(model.hf, strategy, image_token_ids=model.image_token_ids):
                alone = model.hf(**inputs, **positions, logits_to_keep=1).logits[:, -1].float()
            assert together[number].isfinite().all() and alone.isfinite().all()
            difference = max(difference, float((together[number] - alone).abs().max()))
            effect = max(effect, float((alone - plain).abs().max()))
    return {
        "largest_difference_of_logits": difference,
        "largest_effect_of_pruning_on_logits": round(effect, 3),
    }


def measure(
    model: Model, task: Task, strategies: Sequence[Strategy], overrides: Sequence[str], arguments: Any
) -> dict[str, Any]:
    ways: dict[str, int] = {"one pass": N, "groups of 16": 16, "one by one": 0}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, Answers] = {}
    progress = bar("one pass")
    progress.begin(arguments.rounds * len(ways) + arguments.processes)
    for _ in range(arguments.rounds):
        for name, group in ways.items():
            spent, texts[name] = evaluated(model, task, strategies, arguments.batch_size, group)
            seconds[name].append(round(spent, 3))
            progress.advance(1, f"{name}: {spent:.1f} s")
        assert texts["one pass"] == texts["groups of 16"] == texts["one by one"], "answers must be the same"
    processes = []
    for strategy in strategies[:: max(1, N // max(1, arguments.processes))][: arguments.processes]:
        processes.append(round(seconds_of_a_process(strategy, overrides), 3))
        progress.advance()
    progress.end()
    median: Callable[[str], float] = lambda name: statistics.median(seconds[name])  # noqa: E731
    ratios = {name: round(median(name) / median("one pass"), 2) for name in ways}
    if processes:
        ratios["a process each"] = round(statistics.mean(processes) * N / median("one pass"), 2)
    return {
        "ratio_to_one_pass": ratios,
        "seconds": seconds,
        "seconds_of_processes": processes,
        "different_answers": len({tuple(answers) for answers in texts["one pass"]}),
        **logits(model, task, strategies),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    overrides = [
        "task=shapes_short",
        "task.split=search",
        f"task.limit={arguments.samples}",
        f"hardware.batch_size={arguments.batch_size}",
    ]
    config = compose("sweep", SweepConfig, overrides)
    prepare(config.hardware)
    model, task = models.load(config.model, config.hardware), tasks.load(config.task)
    evaluate(model, Strategy("none"), task, batch_size=arguments.batch_size)  # warm
    drawn = asked_for([*overrides, "task.limit=64"])
    sets = {"default sampler": drawn, "same first stage": same_start(config.model.architecture.n_layers)}
    content: dict[str, Any] = {
        "configurations": N,
        "samples": arguments.samples,
        "batch_size": arguments.batch_size,
        "sets": {name: measure(model, task, chosen, overrides, arguments) for name, chosen in sets.items()},
        "drawn": [strategy.name for strategy in drawn],
        "environment": environment(str(model.device)),
    }
    for name, found in content["sets"].items():
        print(name, json.dumps(found["ratio_to_one_pass"]), found["largest_difference_of_logits"])
        assert found["largest_difference_of_logits"] <= 1e-5 < found["largest_effect_of_pruning_on_logits"]
    write_json(Path(__file__).parent / "results" / "one_pass.json", content)


if __name__ == "__main__":
    main()
