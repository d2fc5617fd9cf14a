"""A sweep over the stand-in, to be killed: `python killed_worker.py FOLDER STORAGE TRIALS SECONDS GROUP`.

Every evaluation appends a line to evaluations.log when it begins and when its result is ready to be returned.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import synthetic

from himap.search.study import run
from himap.strategy import Strategy


def main(folder: Path, storage: str, trials: int, seconds: float, group: int) -> None:
    def log(text: str) -> None:
        with open(folder / "evaluations.log", "a") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())

    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, where: Path) -> dict[str, Any]:
        name = where.relative_to(folder.resolve())
        log(f"begin {name}")
        time.sleep(seconds)
        return synthetic.answer(strategy, split, where)

    run(synthetic.sweep(trials=trials, seeds=6, storage=storage, group=group), folder, evaluate)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
