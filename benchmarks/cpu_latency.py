"""Does himap's prefill fall with its FLOPs on a CPU? Two models, each strategy at its fastest execution.

Times the decoder's prefill (image features given) without pruning and with HiMAP, in rounds and in random
order: the embedded model in float32 with one prompt and with 32, and a LLaVA of 1.3 billion random weights in
bfloat16 with 35 + 576 + 60 tokens. Prints the measured share beside the FLOPs share, how long the ranking
takes and where the time goes. Keeps benchmarks/results/cpu_latency.json. Goal: 1.1 times the FLOPs share.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from himap import models
from himap.attention import column_sums
from himap.config.compose import compose
from himap.config.schema import EvaluateConfig
from himap.dropping import reads_attention
from himap.execution import make
from himap.files import write_json
from himap.flops import DecoderShape, count
from himap.latency.clock import Job, rounds, time_ms
from himap.latency.prompt import made_up
from himap.latency.shape import Shape
from himap.latency.statistics import median, ratio
from himap.latency.tower import given_features
from himap.strategy import Strategy

STRATEGIES = ("none", "himap")
KINDS = ("eager", "compiled")
CASES = (("shapes", "float32", 1), ("shapes", "float32", 32), ("llava_1b_random", "bfloat16", 1))
GOAL = 1.1
CPU = torch.device("cpu")
N_PROFILED = 3
# Operations by what they are, for the profile.
KINDS_OF_WORK = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("scaled_dot_product",),
    "sorting, gathering": ("aten::sort", "aten::index", "aten::gather", "aten::scatter", "aten::cumsum"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=15, help="of the large model; the small one has three times as many"
    )
    parser.add_argument(
        "--cases", type=int, nargs="+", default=range(len(CASES)), help="0, 1, 2: as listed above"
    )
    parser.add_argument(
        "--eager", action="store_true", help="leave the compiled execution out (saves minutes)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kinds = KINDS[:1] if arguments.eager else KINDS
    found = [case(*CASES[number], arguments.rounds, kinds) for number in arguments.cases]
    from himap.result import environment

    write_json(
        Path(__file__).parent / "results" / "cpu_latency.json",
        {"goal": GOAL, "cases": found, "environment": environment("cpu")},
    )


def case(name: str, dtype: str, batch_size: int, n_rounds: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Measure one model at one batch size, print it and return it."""
    words = [f"model={name}", f"hardware.dtype={dtype}"]
    configs = {p: compose("evaluate", EvaluateConfig, [*words, f"pruning={p}"]) for p in STRATEGIES}
    strategies = {p: config.pruning.strategy() for p, config in configs.items()}
    config = configs["none"]
    model = models.load(config.model, config.hardware)
    tokens = config.model.architecture
    shape = Shape(batch_size, tokens.n_system, tokens.n_image, tokens.n_instruction, 1)
    inputs = made_up(model, shape, 0)
    print(f"\n{name}, {dtype}: {shape.text}", flush=True)
    jobs: dict[str, list[Job]] = {}
    with given_features(model, inputs):
        for p, strategy in strategies.items():
            jobs[p] = []
            for kind in kinds:
                job = Job(p, kind, make(kind, model, strategy, inputs, 0), torch.empty(0))
                job.run(inputs)
                jobs[p].append(job)
                print(f"  {p}, {kind}: made", flush=True)
        n_rounds = n_rounds if name != "shapes" else 3 * n_rounds
        rounds(jobs, inputs, CPU, n_rounds, random.Random(0), lambda: None)
        fastest = {
            p: min(several, key=lambda job: median(job.prefill_ms).median) for p, several in jobs.items()
        }
        work = {p: profile(job, inputs) for p, job in fastest.items()}
    decoder = DecoderShape.from_config(model.hf.config)
    share = count(
        decoder, strategies["himap"], tokens.n_system, tokens.n_image, tokens.n_instruction
    ).prefill_share
    whole, pruned = fastest["none"].prefill_ms, fastest["himap"].prefill_ms
    measured = ratio(pruned, whole)
    ranking = ranking_ms(strategies["himap"], decoder, shape, getattr(torch, dtype))
    content = {
        "model": name,
        "dtype": dtype,
        "batch_size": batch_size,
        "tokens": [tokens.n_system, tokens.n_image, tokens.n_instruction],
        "n_rounds": n_rounds,
        "prefill_ms": {
            f"{job.strategy}, {job.kind}": vars(median(job.prefill_ms))
            for several in jobs.values()
            for job in several
        },
        "fastest": {p: job.kind for p, job in fastest.items()},
        "measured_share": vars(measured),
        "flops_share": share,
        "times_the_flops_share": measured.median / share,
        "goal_reached": measured.median <= GOAL * share,
        "ranking_ms": ranking,
        "ranking_of_unpruned": ranking / median(whole).median,
        "profile_ms": work,
    }
    show(content)
    for several in jobs.values():
        for job in several:
            job.execution.close()
    return content


def profile(job: Job, inputs: dict[str, torch.Tensor]) -> dict[str, float]:
    """Milliseconds of one prefill by kind of work, as torch's profiler sees them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for _ in range(N_PROFILED):
            job.execution.prefill(inputs)
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        kind = next(
            (kind for kind, names in KINDS_OF_WORK.items() if any(n in event.key for n in names)),
            "the rest (norms, rotation, activations, copies, overhead)",
        )
        spent[kind] += event.self_cpu_time_total / 1000 / N_PROFILED
    return {kind: round(ms, 3) for kind, ms in spent.most_common()}


def ranking_ms(strategy: Strategy, decoder: DecoderShape, shape: Shape, dtype: torch.dtype) -> float:
    """Milliseconds of scoring all stages, one operation at a time, on made-up queries and keys."""
    total, n_image = 0.0, shape.n_image
    for stage, (_, n_kept) in zip(strategy.stages, strategy.kept(shape.n_image), strict=True):
        if reads_attention(stage):
            n = shape.n_system + n_image + shape.n_instruction
            size = (shape.batch_size, decoder.n_heads, n, decoder.head_dim)
            query, key = torch.randn(size).to(dtype), torch.randn(size).to(dtype)
            n_rows = {"img2txt": shape.n_instruction, "img2img": n_image}[stage.criterion]
            rows = torch.zeros(shape.batch_size, n, dtype=torch.bool)
            first = n - n_rows if stage.criterion == "img2txt" else shape.n_system
            rows[:, first : first + n_rows] = True

            def score(
                q: torch.Tensor = query, k: torch.Tensor = key, r: torch.Tensor = rows, m: int = n_rows
            ) -> None:
                column_sums(q, k, r, decoder.head_dim**-0.5, n_rows=m)

            total += median([time_ms(score, CPU, []) for _ in range(9)]).median
        n_image = n_kept
    return total


def show(content: dict[str, Any]) -> None:
    for name, ms in content["prefill_ms"].items():
        print(f"  {name:16} {ms['median']:9.2f} ms [{ms['low']:.2f}, {ms['high']:.2f}]")
    share, flops = content["measured_share"], content["flops_share"]
    verdict = "reached" if content["goal_reached"] else "missed"
    low, high, times = share["low"], share["high"], content["times_the_flops_share"]
    print(f"  himap / none, each at its fastest: {share['median']:.3f} [{low:.3f}, {high:.3f}]; ", end="")
    print(f"FLOPs share {flops:.3f}; {times:.2f} times, goal {verdict}")
    ranking, part = content["ranking_ms"], content["ranking_of_unpruned"]
    print(f"  ranking {ranking:.2f} ms, {part:.1%} of the unpruned prefill")
    for p, work in content["profile_ms"].items():
        print(f"  {p}: " + ", ".join(f"{kind} {ms:.1f} ms" for kind, ms in work.items()))


if __name__ == "__main__":
    main()
