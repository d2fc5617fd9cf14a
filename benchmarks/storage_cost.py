"""What does sharing a study cost? Eight workers on one node, trials that sleep for two seconds, each storage.

The cost of a trial is the time of its worker between two evaluations: claiming a trial under the folder's
lock, asking the sampler, writing results, telling the database. Prints its share of a trial for each storage
and keeps benchmarks/results/storage_cost.json. With the sampler `random` the cost is the storage's; the
default sampler, `ehvi`, adds the time of its own choice, which is told apart, and Optuna's `tpe` adds its own
and four questions to the database a trial. What is no choice of the first two is held to the limit.
PostgreSQL is measured where HIMAP_TEST_POSTGRES names one:
python tests/cluster/serve.py .venv/bin/python benchmarks/storage_cost.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

from himap.files import append_jsonl, write_json
from himap.result import environment

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "search"))
LIMIT = 0.05
HELD, BESIDE = ("random", "ehvi"), ("tpe",)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=8, help="for each worker")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a trial sleeps")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(*given.work, trials=given.workers * given.trials, seconds=given.seconds)
        return
    storages = {"sqlite": "sqlite", "journal": "journal"}
    if url := os.environ.get("HIMAP_TEST_POSTGRES"):
        storages["postgresql"] = url
    costs: dict[str, dict[str, Any]] = {}
    for sampler in (*HELD, *BESIDE):
        for name, storage in storages.items():
            costs.setdefault(name, {})[sampler] = found = measure(given, sampler, storage)
            spent = f"{found['mean_ms']} ms, {found['cpu_ms']} of them CPU, {found['choice_ms']} the choice"
            print(f"{name}, {sampler}: {found['share']:.1%} of a trial ({spent})", flush=True)
    missed = [
        f"{name}, {sampler}"
        for name, cost in costs.items()
        for sampler in HELD
        if cost[sampler]["share_without_choice"] >= LIMIT
    ]
    content = {
        "workers": given.workers,
        "trials": given.workers * given.trials,
        "trial_s": given.seconds,
        "limit": LIMIT,
        "missed": missed,
        "cost": costs,
        "load_average": os.getloadavg()[0],
        "environment": environment("cpu"),
    }
    write_json(Path(__file__).parent / "results" / "storage_cost.json", content)
    sys.exit(f"above {LIMIT:.0%}: {'; '.join(missed)}" if missed else 0)


def measure(given: argparse.Namespace, sampler: str, storage: str) -> dict[str, Any]:
    """Run all workers on a new study; the time between evaluations in one worker, start and end left out."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = [f"--{key}={getattr(given, key)}" for key in ("workers", "trials", "seconds")]
        job = [folder, storage, sampler, uuid.uuid4().hex[:8]]
        command = [sys.executable, __file__, *sizes, "--work", *job]
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        workers = [subprocess.Popen(command, env=variables) for _ in range(given.workers)]
        codes = [worker.wait() for worker in workers]
        if any(codes):
            raise SystemExit(f"{storage}: a worker failed")
        gaps: list[float] = []
        cpu: list[float] = []
        choices: list[float] = []
        for path in sorted(Path(folder).glob("spans-*.jsonl")):
            spans = [json.loads(line) for line in path.read_text().splitlines()]
            gaps += [after["begin"] - before["end"] for before, after in pairwise(spans)]
            cpu += [after["cpu_begin"] - before["cpu_end"] for before, after in pairwise(spans)]
            choices += [after["choice"] for _, after in pairwise(spans)]
    mean, choice = statistics.fmean(gaps), statistics.fmean(choices)
    return {
        "share": round(mean / given.seconds, 4),
        "share_without_choice": round((mean - choice) / given.seconds, 4),
        "mean_ms": round(1000 * mean, 1),
        "median_ms": round(1000 * statistics.median(gaps), 1),
        "max_ms": round(1000 * max(gaps), 1),
        "cpu_ms": round(1000 * statistics.fmean(cpu), 1),
        "choice_ms": round(1000 * choice, 1),
        "n": len(gaps),
    }


def work(folder: str, storage: str, sampler: str, name: str, *, trials: int, seconds: float) -> None:
    """One worker; all begin together, once every one of them is up."""
    import synthetic

    from himap.search.promise import Chooser
    from himap.search.study import run
    from himap.strategy import Strategy

    choose, choices = Chooser.choose, [0.0]

    def timed(*arguments: Any) -> Any:
        begin = time.monotonic()
        try:
            return choose(*arguments)
        finally:
            choices.append(time.monotonic() - begin)

    Chooser.choose = timed  # type: ignore[method-assign]
    place = Path(folder)
    spans = place / f"spans-{os.getpid()}.jsonl"

    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, where: Path) -> dict[str, Any]:
        begin, cpu = time.monotonic(), time.process_time()
        result = synthetic.answer(strategy, split, where)
        if where.parent.name == "trials":
            time.sleep(max(0.0, begin + seconds - time.monotonic()))
            now = {"end": time.monotonic(), "cpu_end": time.process_time()}
            append_jsonl(spans, [{"begin": begin, "cpu_begin": cpu, "choice": sum(choices), **now}])
            choices.clear()
        return result

    sweep = synthetic.sweep(
        trials=trials,
        storage=storage,
        name=name,
        sampler=sampler,
        group=1,
        seeds=0 if sampler == "random" else 24,
        heldout_points=0,
    )
    run(sweep, place, evaluate)


if __name__ == "__main__":
    main()
