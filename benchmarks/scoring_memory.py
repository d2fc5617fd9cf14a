"""How much memory does scoring take as prompts grow? Must grow with the tokens, not with their square.

    python benchmarks/scoring_memory.py

One call of `column_sums` in LLaVA-1.5-7B's shape (32 heads of 128, single precision on the CPU), in a process
of its own for each length and criterion; counted is how far its peak rises above what it held with the
query and the key. Beside it: what the whole attention map of that layer would take. Keeps
benchmarks/results/scoring_memory.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

LENGTHS = (640, 2_880, 8_192, 16_384)
CRITERIA = ("img2txt", "img2img")
N_SYSTEM, N_INSTRUCTION, HEADS, HEAD_WIDTH = 35, 60, 32, 128
MIB = 2**20


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(criterion: str, n_tokens: int) -> float:
    """MiB that scoring takes, in this process."""
    import torch

    from himap.attention import column_sums

    rows = torch.zeros(1, n_tokens, dtype=torch.bool)
    if criterion == "img2txt":
        rows[:, n_tokens - N_INSTRUCTION :] = True
    else:
        rows[:, N_SYSTEM : n_tokens - N_INSTRUCTION] = True
    n_rows = int(rows.sum())
    # A small call first: libraries that are loaded and threads that are made now are not the scores'.
    small = torch.randn(1, HEADS, 64, HEAD_WIDTH)
    column_sums(small, small, rows[:, -64:], 0.1, n_rows=min(64, n_rows))
    query, key = torch.randn(2, 1, HEADS, n_tokens, HEAD_WIDTH).unbind()
    before = peak_mib()
    column_sums(query, key, rows, HEAD_WIDTH**-0.5, n_rows=n_rows)
    return peak_mib() - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--child", nargs=2, metavar=("CRITERION", "TOKENS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(measure(arguments.child[0], int(arguments.child[1])))
        return

    from himap.files import write_json
    from himap.progress import bar
    from himap.result import environment

    found: dict[str, Any] = {"whole attention map": {n: round(4 * HEADS * n * n / MIB) for n in LENGTHS}}
    progress = bar("scoring memory")
    progress.begin(len(CRITERIA) * len(LENGTHS))
    for criterion in CRITERIA:
        found[criterion] = {}
        for n in LENGTHS:
            command = [sys.executable, __file__, "--child", criterion, str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[criterion][n] = round(float(done.stdout), 1)
            progress.advance(1, f"{criterion}, {n} tokens: {found[criterion][n]} MiB")
    progress.end()
    per_token = {name: {n: round(1024 * found[name][n] / n, 2) for n in LENGTHS} for name in CRITERIA}
    print(json.dumps({"MiB": found, "KiB a token": per_token}, indent=1))
    content = {"mib": found, "kib_a_token": per_token, "environment": environment("cpu")}
    write_json(Path(__file__).parent / "results" / "scoring_memory.json", content)


if __name__ == "__main__":
    main()
