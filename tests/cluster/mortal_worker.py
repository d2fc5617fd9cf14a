"""A worker of a synthetic sweep, to be killed: `python mortal_worker.py FOLDER STORAGE NAME TRIALS SECONDS`.

Exits with 0 when the sweep is complete, with 3 while another worker still evaluates.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import synthetic

from himap.search.presence import present
from himap.search.study import run
from himap.strategy import Strategy


def main(folder: Path, storage: str, name: str, trials: int, seconds: float) -> int:
    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, where: Path) -> dict[str, Any]:
        if split == "search":
            time.sleep(seconds)
        return synthetic.answer(strategy, split, where)

    # A trial is not to blame for what the test does to its workers.
    sweep = synthetic.sweep(
        trials=trials, storage=storage, name=name, max_attempts=1000, heldout_points=trials
    )
    with present(folder, "cpu"):
        return 0 if run(sweep, folder, evaluate) else 3


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
