"""Time the data side of the benchmarks on made-up parquet: how soon 2,000 samples start, and scoring VQAv2.

Prints JSON; `python benchmarks/tasks.py > benchmarks/results/tasks.json` keeps it. One thread.
"""

from __future__ import annotations

import io
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from himap.config import TaskConfig

N_LOADED = 2_000
N_SCORED = 200_000
_SIDES = (640, 480)
_ANSWERS = ["yes", "no", "2", "two", "a red dog", "Red", "left, right", "it's", "1,000", "on the table."]


def picture(seed: int) -> bytes:
    """A noisy JPEG of 640 x 480 pixels, about the size of COCO's."""
    from PIL import Image

    noise = Image.effect_noise((80, 60), 60 + seed % 30).resize(_SIDES).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write(path: Path, n: int, images: list[bytes]) -> None:
    """VQAv2's validation split with `n` questions, in row groups of 100 as the hub has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = random.Random(0)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    answer = pa.struct(
        [("answer", pa.string()), ("answer_confidence", pa.string()), ("answer_id", pa.int64())]
    )
    schema = pa.schema(
        [("question_id", pa.int64()), ("question", pa.string()), ("answer_type", pa.string()),
         ("answers", pa.list_(answer)), ("image", image)]
    )  # fmt: skip
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n, 1000):
            rows = [row(number, generator, images) for number in range(start, min(start + 1000, n))]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=100)


def row(number: int, generator: random.Random, images: list[bytes]) -> dict[str, Any]:
    given = generator.choices(generator.sample(_ANSWERS, 3), k=10)
    return {
        "question_id": number,
        "question": f"What is number {number}?",
        "answer_type": "other",
        "answers": [
            {"answer": one, "answer_confidence": "yes", "answer_id": i} for i, one in enumerate(given)
        ],
        "image": {"bytes": images[number % len(images)] if images else b"", "path": None},
    }


def task(path: Path, limit: int | None = None) -> Any:
    from himap import tasks

    options = {"normalisation": "official", "processor": "evalai", "submission_ids": ""}
    data = {"source": "parquet", "path": str(path)}
    return tasks.load(TaskConfig("vqav2", "vqav2", "val", limit=limit, data=data, options=options))


def first_prompt(path: Path) -> float:
    """Seconds to the first prompt in a process of its own: the imports are what a user waits for, too."""
    timed = (
        "import sys, time; start = time.perf_counter(); from pathlib import Path; from tasks import task; "
        "loaded = task(Path(sys.argv[1])); loaded.prompt(loaded.samples()[0], 'llava'); "
        "print(time.perf_counter() - start)"
    )
    words = [sys.executable, "-c", timed, str(path)]
    done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return round(float(done.stdout), 2)


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return round(time.perf_counter() - start, 2)


def main() -> None:
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures.parquet"
        write(pictures, N_LOADED, [picture(seed) for seed in range(20)])
        size_mib = round(pictures.stat().st_size / 2**20, 1)
        found[f"first_prompt_of_{N_LOADED}_samples"] = first_prompt(pictures)
        loaded = task(pictures)
        order = random.Random(0).sample(range(N_LOADED), 200)
        found["200_prompts_in_random_order"] = seconds(
            lambda: [loaded.prompt(loaded.samples()[i], "llava") for i in order]
        )
        large = Path(folder) / "large.parquet"
        write(large, N_SCORED, [])
        scored = task(large)
        found[f"read_{N_SCORED}_questions"] = seconds(scored.samples)
        generator = random.Random(1)
        outputs = [generator.choice(_ANSWERS).capitalize() for _ in range(N_SCORED)]

        def score() -> None:
            samples = scored.samples()
            scored.score(samples, [scored.parse(text, s) for text, s in zip(outputs, samples, strict=True)])

        found[f"score_{N_SCORED}_vqav2_answers"] = seconds(score)
    result = {
        "seconds": found,
        "pictures_mib": size_mib,
        "machine": {"n_cpus": os.cpu_count(), "load": os.getloadavg()[0], "system": platform.platform()},
        "versions": {name: version(name) for name in ("pyarrow", "pillow", "numpy")},
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
