"""What does a second group of trials pay for the vision tower? Nothing, when its features lie on the disk.

A group (four strategies on the same samples, in one pass) is evaluated by fresh processes, in turns: without
a cache, with an empty one, and with the one that the process before has filled. Counts the images that the
tower sees, and the seconds spent in it and in getting features at all (tower, digests, disk). Prints the
ratios, keeps benchmarks/results/feature_cache.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from himap.files import write_json
from himap.progress import bar
from himap.result import environment

WAYS = ("without", "empty", "filled")
GROUP = ("none", "fastv", "himap", "random")
MEASURED = ("images", "tower_s", "features_s", "group_s")


def group(overrides: list[str], cache: str | None) -> dict[str, Any]:
    """Evaluate the group in this process; what it took, and the answers."""
    from himap import models, tasks
    from himap.config.compose import compose
    from himap.config.schema import EvaluateConfig
    from himap.features import open_cache
    from himap.hardware import prepare
    from himap.models.fingerprint import fingerprint
    from himap.reuse import Reuse
    from himap.together import Request, evaluate_together

    chosen = [*overrides, f"hardware.feature_cache={cache or 'null'}"]
    configs = [compose("evaluate", EvaluateConfig, [*chosen, f"pruning={name}"]) for name in GROUP]
    config = configs[0]
    prepare(config.hardware)
    model, task = models.load(config.model, config.hardware), tasks.load(config.task)
    found: dict[str, Any] = {"images": 0, "tower_s": 0.0, "features_s": 0.0}
    began: list[float] = []
    owner = model.hf.model
    tower = getattr(owner, "vision_tower", None) or owner.visual

    def before(module: Any, args: Any, kwargs: Any) -> None:
        found["images"] += len(args[0] if args else kwargs["pixel_values"])
        began.append(time.perf_counter())

    def after(*_: Any) -> None:
        found["tower_s"] += time.perf_counter() - began.pop()

    tower.register_forward_pre_hook(before, with_kwargs=True)
    tower.register_forward_hook(after)
    cached = open_cache(config.model, config.hardware, fingerprint(config.model))

    class Timed(Reuse):
        """Reuse whose answers to the model are timed."""

        @contextmanager
        def attached(self, hf: Any) -> Iterator[None]:
            with super().attached(hf):
                looked_up = owner.get_image_features

                @functools.wraps(looked_up)
                def timed(*args: Any, **kwargs: Any) -> Any:
                    start = time.perf_counter()
                    features = looked_up(*args, **kwargs)
                    found["features_s"] += time.perf_counter() - start
                    return features

                owner.get_image_features = timed
                yield

    reuse = Timed(config.hardware.reuse_mib, cached)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / one.pruning.name / "answers.jsonl" for one in configs]
        requests = [
            Request(one.pruning.strategy(), place) for one, place in zip(configs, places, strict=True)
        ]
        started = time.perf_counter()
        evaluate_together(model, requests, task, batch_size=config.hardware.batch_size, reuse=reuse)
        found["group_s"] = time.perf_counter() - started
        found["answers"] = [
            [json.loads(line)["prediction"] for line in place.read_text().splitlines()] for place in places
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="of himap evaluate, such as task=shapes_caption")
    arguments = parser.parse_args()
    overrides = [f"task.limit={arguments.samples}", *arguments.overrides]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    processes = multiprocessing.get_context("spawn")
    progress = bar("feature cache")
    progress.begin(arguments.rounds * len(WAYS))
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            shutil.rmtree(folder, ignore_errors=True)
            for way in WAYS:
                with processes.Pool(1) as pool:  # a process of its own: nothing is left in memory
                    runs[way].append(pool.apply(group, (overrides, None if way == "without" else folder)))
                progress.advance()
            mib = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors")) / 2**20
    progress.end()
    same = all(run["answers"] == runs["without"][0]["answers"] for way in WAYS for run in runs[way])
    medians = {
        way: {name: round(statistics.median(run[name] for run in runs[way]), 4) for name in MEASURED}
        for way in WAYS
    }
    plain, filled = medians["without"], medians["filled"]
    content = {
        "samples": arguments.samples,
        "overrides": arguments.overrides,
        "group": GROUP,
        "medians": medians,
        "filled_to_without": {name: round(filled[name] / plain[name], 4) for name in MEASURED},
        "empty_to_without": round(medians["empty"]["group_s"] / plain["group_s"], 4),
        "cache_mib": round(mib, 1),
        "answers_equal": same,
        "rounds": [
            {way: {k: v for k, v in runs[way][i].items() if k != "answers"} for way in WAYS}
            for i in range(arguments.rounds)
        ],
        "environment": environment("cpu"),
    }
    print(
        json.dumps({key: content[key] for key in ("medians", "filled_to_without", "answers_equal")}, indent=2)
    )
    if filled["images"] or not same:
        raise SystemExit("the second group asked the vision tower, or its answers differ")
    write_json(Path(__file__).parent / "results" / "feature_cache.json", content)


if __name__ == "__main__":
    main()
