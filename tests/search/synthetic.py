"""A stand-in for model and task: a smooth accuracy over (K1, R1, K2, R2) with a finite sample's noise."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from himap.files import append_jsonl
from himap.search.config import AxesConfig, DropAxis, LayerAxis, SearchConfig
from himap.search.evaluator import Evaluator, Job, Reply
from himap.search.space import Space
from himap.search.study import Sweep
from himap.strategy import Stage, Strategy

N_LAYERS = 12
N_IMAGE = 144
N_SAMPLES = {"search": 256, "heldout": 1000}

HIMAP = Strategy("himap", (Stage(2, 0.5, "img2txt"), Stage(8, 0.75, "img2img")))
FASTV = Strategy("fastv", (Stage(2, 0.5, "last2img"),))
NONE = Strategy("none")


def share(strategy: Strategy) -> float:
    """FLOPs share where a layer costs as much as it has image tokens."""
    return sum(strategy.tokens_per_layer(N_IMAGE, N_LAYERS)) / (N_IMAGE * N_LAYERS)


def probability(strategy: Strategy) -> float:
    """Of a right answer: early drops hurt most, and some criteria more than others."""
    harm, n = 0.0, N_IMAGE
    for stage in strategy.stages:
        kept = stage.n_kept(n)
        factor = {"img2txt": 1.0, "img2img": 1.2, "last2img": 1.5}.get(stage.criterion, 2.5)
        harm += factor * (math.log((n + 4) / (kept + 4)) / 3) ** 2 * math.exp(-(stage.layer - 1) / 3)
        n = kept
    return 0.1 + 0.88 * math.exp(-harm)


def one_by_one(answer: Callable[[Strategy, str, Path], dict[str, Any]]) -> Evaluator:
    """An evaluator as the search wants it, out of a function that evaluates a single strategy."""

    def evaluate(jobs: Sequence[Job], split: str, advance: Callable[[float], None]) -> list[Reply]:
        replies: list[Reply] = []
        for n_done, job in enumerate(jobs, start=1):
            try:
                replies.append(answer(job.strategy, split, job.folder))
            except Exception as error:
                replies.append(error)
            advance(n_done / len(jobs))
        return replies

    return evaluate


def answer(strategy: Strategy, split: str, folder: Path) -> dict[str, Any]:
    """The result of a strategy; the same one always gets the same answers."""
    stages = [(stage.layer, stage.drop, stage.criterion) for stage in strategy.stages]
    rng = random.Random(hashlib.sha256(repr((stages, split)).encode()).hexdigest())
    n = N_SAMPLES[split]
    scores = [float(rng.random() < probability(strategy)) for _ in range(n)]
    answers = folder / "answers.jsonl"
    answers.unlink(missing_ok=True)
    append_jsonl(answers, ({"id": str(i), "score": score} for i, score in enumerate(scores)))
    mean = sum(scores) / n
    half = 196 * math.sqrt(mean * (1 - mean) / n)
    return {
        "model": "synthetic",
        "pruning": strategy.name,
        "task": "synthetic",
        "split": split,
        "n_samples": n,
        "n_failed": 0,
        "metrics": {"accuracy": 100 * mean, "primary": "accuracy"},
        "ci95": [100 * mean - half, 100 * mean + half],
        "kept": [list(pair) for pair in strategy.kept(N_IMAGE)],
        "flops": {
            "paper_tflops": share(strategy),
            "paper_share": share(strategy),
            "prefill_tflops": share(strategy),
            "prefill_share": share(strategy),
        },
        "samples_per_second": 100.0,
        "environment": {"python": "3", "torch": "none"},
        "config_sha256": "0",
    }


evaluate = one_by_one(answer)


def axes(**changes: Any) -> AxesConfig:
    values: dict[str, Any] = {
        "K1": LayerAxis(1, 6),
        "R1": DropAxis(0.0, 0.95, 0.05),
        "K2": LayerAxis(2, 11),
        "R2": DropAxis(0.0, 0.95, 0.05),
    }
    return AxesConfig(**{**values, **changes})


def space(**changes: Any) -> Space:
    return Space(axes(**changes), HIMAP, N_LAYERS, N_IMAGE)


def sweep(identity: dict[str, Any] | None = None, **settings: Any) -> Sweep:
    """A sweep over the stand-in; `settings` are those of `SearchConfig`."""
    settings.setdefault("axes", axes())
    config = SearchConfig(**settings)
    return Sweep(
        config,
        Space(config.axes, HIMAP, N_LAYERS, N_IMAGE),
        {"none": NONE, "fastv": FASTV, "himap": HIMAP},
        share,
        "search",
        identity or {"task": {"limit": 256}},
    )
