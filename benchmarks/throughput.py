"""How much faster is an evaluation than a plain loop around transformers' `generate`, one prompt at a time?

Same model, samples, strategy (none), decoding and answers; in turns, in one process. The loop is what common
evaluators run: processor, `generate`, decode, next sample. Prints samples per second and their ratio, keeps
benchmarks/results/throughput.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="of himap evaluate, such as hardware.dtype=bfloat16")
    arguments = parser.parse_args()
    config = compose("evaluate", EvaluateConfig, [f"task.limit={arguments.samples}", *arguments.overrides])
    prepare(config.hardware)
    model, task = models.load(config.model, config.hardware), tasks.load(config.task)
    batch_size = config.hardware.batch_size
    seconds: dict[str, list[float]] = {"loop": [], "himap": []}
    progress = bar("throughput")
    progress.begin(arguments.rounds)
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        one_by_one = loop(model, task)
        seconds["loop"].append(time.perf_counter() - start)
        start = time.perf_counter()
        together = batched(model, task, batch_size)
        seconds["himap"].append(time.perf_counter() - start)
        assert together == one_by_one, "the answers must be the same"
        progress.advance()
    progress.end()
    rates = {
        name: round(arguments.samples / statistics.median(values), 1) for name, values in seconds.items()
    }
    content = {
        "samples": arguments.samples,
        "batch_size": batch_size,
        "samples_per_second": rates,
        "ratio": round(rates["himap"] / rates["loop"], 2),
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "answers": "the same",
        "environment": environment(str(model.device)),
    }
    write_json(Path(__file__).parent / "results" / "throughput.json", content)
    print(json.dumps({key: content[key] for key in ("samples_per_second", "ratio")}))


if __name__ == "__main__":
    main()
