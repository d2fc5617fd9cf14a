"""Time the metrics on made-up data: 200,000 VQA answers, and 40,000 captions with the Python tokenizer.

Prints JSON; `python benchmarks/metrics.py > benchmarks/results/metrics.json` keeps it. One process.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from himap.metrics.caption import cider
from himap.metrics.statistics import bootstrap_mean
from himap.metrics.vqa import soft_accuracy

N_ANSWERS = 200_000
N_CAPTIONS = 40_000
N_REFERENCES = 5
N_SCORES = 10_000
_SYLLABLES = ["ba", "do", "ki", "lu", "me", "no", "pra", "ri", "sto", "tu", "va", "wen"]


def words(generator: random.Random, n: int, vocabulary: list[str]) -> list[str]:
    """`n` words, common ones often: the k-th with a weight of about 1/k."""
    weights = [1 / (rank + 1) for rank in range(len(vocabulary))]
    return generator.choices(vocabulary, weights, k=n)


def seconds(function: Callable[[], object]) -> dict[str, float]:
    """Seconds of one call by the clock and of processor time (less open to other work on the machine)."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return {"wall": round(time.perf_counter() - wall, 2), "cpu": round(time.process_time() - cpu, 2)}


def vqa_seconds(
    generator: random.Random, vocabulary: list[str], normalisation: str, *, distinct: bool = False
) -> dict[str, float]:
    """Score N_ANSWERS questions of ten answers each; every other answer carries marks or an article.

    `distinct`: no two questions share an answer, so that no normalised answer can be used again.
    """
    marks = ["{}", "{}", "{}", "{}", "the {}", "{}.", "1,000 {}s", "{}'s"]
    stream = iter(words(generator, 5 * N_ANSWERS, vocabulary))
    questions = []
    for i in range(N_ANSWERS):
        pool = [generator.choice(marks).format(next(stream)) for _ in range(4)]
        if distinct:
            pool = [f"{answer} {i}" for answer in pool]
        questions.append((generator.choice(pool), generator.choices(pool, k=10)))
    return seconds(lambda: [soft_accuracy(guess, given, normalisation) for guess, given in questions])


def caption_seconds(generator: random.Random, vocabulary: list[str], n_images: int) -> dict[str, float]:
    """Score one caption of about eleven words for each image against N_REFERENCES references."""
    n_captions = n_images * (1 + N_REFERENCES)
    stream = iter(words(generator, 16 * n_captions, vocabulary))

    def caption() -> str:
        return " ".join(next(stream) for _ in range(generator.randint(7, 15))).capitalize() + "."

    candidates = [caption() for _ in range(n_images)]
    references = [[caption() for _ in range(N_REFERENCES)] for _ in range(n_images)]
    return seconds(lambda: cider(candidates, references, "python"))


def main() -> None:
    generator = random.Random(0)
    vocabulary = ["".join(generator.choices(_SYLLABLES, k=generator.randint(1, 3))) for _ in range(4_000)]
    scores = [generator.random() for _ in range(N_SCORES)]
    result = {
        "seconds": {
            f"vqa_{name}_{N_ANSWERS}_answers": vqa_seconds(generator, vocabulary, name)
            for name in ("official", "always", "m4c")
        }
        | {
            f"vqa_always_{N_ANSWERS}_distinct_answers": vqa_seconds(
                generator, vocabulary, "always", distinct=True
            ),
            f"cider_python_{N_CAPTIONS}_captions": caption_seconds(
                generator, vocabulary, N_CAPTIONS // (1 + N_REFERENCES)
            ),
            f"bootstrap_mean_{N_SCORES}_scores": seconds(lambda: bootstrap_mean(scores)),
        },
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "machine": {"cpu": _cpu(), "n_cpus": os.cpu_count(), "system": platform.platform()},
        "versions": {
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "pycocoevalcap": version("pycocoevalcap"),
        },
    }
    json.dump(result, sys.stdout, indent=2)
    print()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
