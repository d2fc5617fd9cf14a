"""How much faster is an evaluation than a plain loop around transformers' `generate`, one prompt at a time?

Same model, samples, strategy (none), decoding and answers; in turns, in one process. The loop is what common
evaluators run: processor, `generate`, decode, next sample. How much an evaluation can spare depends on how
many questions are asked about each picture: MME asks 2, each split of POPE 6, VQAv2 5.4 on average, all of
POPE 18. Prints the ratio of the times for each such number, keeps benchmarks/results/throughput.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from himap import models, tasks
from himap.config.compose import compose
from himap.config.schema import EvaluateConfig
from himap.evaluate import evaluate
from himap.files import write_json
from himap.hardware import prepare
from himap.models.base import Model
from himap.progress import bar
from himap.result import environment
from himap.strategy import Strategy
from himap.tasks.base import Task


def loop(model: Model, task: Task) -> dict[str, str]:
    """Answers by sample, one prompt at a time."""
    answers = {}
    tokenizer = model.processor.tokenizer
    generation = task.generation_for(model.family)
    for sample in task.samples():
        prompt = task.prompt(sample, model.family)
        inputs = model.processor(text=[model.format(prompt)], images=list(prompt.images), return_tensors="pt")
        with torch.inference_mode():
            tokens = model.hf.generate(
                **inputs.to(model.device, model.hf.dtype),
                do_sample=False,
                max_new_tokens=generation.max_new_tokens,
                eos_token_id=list(model.stop_for(prompt.form)),
                pad_token_id=tokenizer.pad_token_id,
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        (text,) = tokenizer.batch_decode(new, skip_special_tokens=True)
        answers[sample.id] = task.parse(text.strip(), sample)
    return answers


def batched(model: Model, task: Task, batch_size: int) -> dict[str, str]:
    """Answers by sample, as himap evaluates."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        evaluate(model, Strategy("none"), task, batch_size=batch_size, answers_path=path)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["id"]: row["prediction"] for row in rows}


def measure(config: EvaluateConfig, model: Model, n_rounds: int) -> dict[str, Any]:
    """Seconds of both in turns, and their ratio; the answers must be the same."""
    task, n = tasks.load(config.task), config.task.limit or 0
    seconds: dict[str, list[float]] = {"loop": [], "himap": []}
    progress = bar(f"{config.task.options['questions']} a picture")
    progress.begin(n_rounds)
    for _ in range(n_rounds):
        start = time.perf_counter()
        one_by_one = loop(model, task)
        seconds["loop"].append(time.perf_counter() - start)
        start = time.perf_counter()
        together = batched(model, task, config.hardware.batch_size)
        seconds["himap"].append(time.perf_counter() - start)
        assert together == one_by_one, "the answers must be the same"
        progress.advance()
    progress.end()
    rates = {name: round(n / statistics.median(values), 1) for name, values in seconds.items()}
    return {
        "samples_per_second": rates,
        "ratio": round(statistics.median(a / b for a, b in zip(*seconds.values(), strict=True)), 2),
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=252)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--questions", type=int, nargs="+", default=[1, 2, 6, 18], help="asked about each picture"
    )
    parser.add_argument("overrides", nargs="*", help="of himap evaluate, such as hardware.dtype=bfloat16")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    model: Model | None = None
    for questions in arguments.questions:
        words = [f"task.limit={arguments.samples}", f"task.options.questions={questions}"]
        config = compose("evaluate", EvaluateConfig, [*words, *arguments.overrides])
        if model is None:
            prepare(config.hardware)
            model = models.load(config.model, config.hardware)
            loop(model, tasks.load(replace(config.task, limit=8)))  # warm-up
        found[str(questions)] = measure(config, model, arguments.rounds)
    assert model is not None
    content = {
        "samples": arguments.samples,
        "overrides": arguments.overrides,
        "batch_size": config.hardware.batch_size,
        "answers": "the same",
        "questions_a_picture": found,
        "load_average": os.getloadavg()[0],
        "environment": environment(str(model.device)),
    }
    write_json(Path(__file__).parent / "results" / "throughput.json", content)
    print(json.dumps({name: one["ratio"] for name, one in found.items()}))


if __name__ == "__main__":
    main()
