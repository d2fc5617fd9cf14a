"""The HiMAP paper's tables beside our results: its value, ours, the interval, the difference.

Source of the values in paper.json: Yin, Si and Wang, "Lifting the Veil on Visual Information Flow in MLLMs".
Here table1 has the short answers and choices, table2 the captions, table3 the judged benchmarks, and table4
the ablation of the criteria, of which only the first and the last row are kept. The paper prints neither its
prompts nor its splits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from himap.report.table import find_errors, is_comparable
from himap.rules import one_of

_PLAIN_FASTV_HIMAP = ("none", "fastv", "himap")
_ABLATION = ("none", "img2txt", "img2img", "img2txt_img2txt", "img2txt_img2img")

_GRIDS = {
    "table1": (("vqav2", "textvqa", "mme", "pope", "scienceqa", "aokvqa"), _PLAIN_FASTV_HIMAP),
    "table2": (("nocaps", "flickr30k"), ("none", "fastv", "himap_caption")),
    "table3": (("llava_bench", "mm_vet"), _PLAIN_FASTV_HIMAP),
    "table4": (("scienceqa", "aokvqa", "pope"), _ABLATION),
}
TABLES = tuple(_GRIDS)

# Where the values of paper.json stand: those of the ablation's inner rows are not kept.
_COLUMN = {"none": 0, "fastv": 1, "himap": 2, "himap_caption": 2, "img2txt_img2img": 2}
_ABLATED = "llava_1_5_7b"

_LONGEST = 32
"""Characters of a reason that a cell holds; longer ones stand below the table."""

_SPLITS = {
    "vqav2": "val", "textvqa": "validation", "mme": "test", "pope": "test", "scienceqa": "test",
    "aokvqa": "validation", "nocaps": "validation", "flickr30k": "test", "llava_bench": "train",
    "mm_vet": "test",
}  # fmt: skip
"""The split of each task's configuration."""

_NOTES = {
    "vqav2": "VQAv2: the paper has the test server's figures for test-dev; `val` is another quantity",
    "nocaps": "captions: the paper's prompt and lengths are unknown; compare differences, not values",
    "mme": "MME: perception + cognition; the paper's baselines lie below the published ones",
    "llava_bench": "judged tasks: the paper does not name its judge",
}


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Attributes:
        task, model, pruning: what was measured.
        paper: the printed value; None where it is not kept here.
        ours: the result's headline value.
        interval: its 95 % interval.
        n_samples: behind it; a limited run has fewer than the paper's.
        missing: why there is no value of ours.
        is_comparable: whether it is the quantity that the paper prints: on this split, not of a part.
    """

    task: str
    model: str
    pruning: str
    paper: float | None
    ours: float | None
    interval: tuple[float, float] | None
    n_samples: int
    missing: str
    is_comparable: bool = True


def cells(table: str, results: Sequence[tuple[Path, dict[str, Any]]], folders: Sequence[Path]) -> list[Cell]:
    """The cells of a table of the paper, filled with what results there are.

    Args:
        table: `table1` to `table4`.
        results: folder and content of result.json; of two for one cell the last counts.
        folders: where runs that failed left an error.txt.

    Raises:
        ConfigError: there is no such table.
    """
    one_of("--paper", table, TABLES)
    tasks, strategies = _GRIDS[table]
    printed = _printed()
    # LLaVA-13B has its first stage one layer later in the paper.
    found = {(r.get("task", ""), r["model"], r["pruning"].removesuffix("_13b")): r for _, r in results}
    errors = _errors(folders)
    rows = []
    for task in tasks:
        for model in [_ABLATED] if table == "table4" else printed[task]:
            for pruning in strategies:
                paper = printed[task][model][_COLUMN[pruning]] if pruning in _COLUMN else None
                key = (task, model, pruning)
                rows.append(_cell(key, paper, found.get(key), errors.get(key, "not run")))
    return rows


def _printed() -> dict[str, dict[str, list[float]]]:
    """Task -> model -> values of none, FastV and HiMAP."""
    text = resources.files("himap.report").joinpath("paper.json").read_text(encoding="utf-8")
    printed: dict[str, dict[str, list[float]]] = json.loads(text)
    return printed


def _cell(
    key: tuple[str, str, str], paper: float | None, result: dict[str, Any] | None, missing: str
) -> Cell:
    if result is None:
        return Cell(*key, paper, None, None, 0, missing)
    metrics, n_samples, task = result["metrics"], result["n_samples"], key[0]
    primary = metrics.get("primary")
    if primary == "answered":
        return Cell(*key, paper, None, None, n_samples, "on the test server")
    if task == "mme" and primary != "total":
        return Cell(*key, paper, None, None, n_samples, "no total without all categories")
    ends = result.get("ci95")
    interval = (float(ends[0]), float(ends[1])) if ends else None
    ours = metrics.get(primary)
    comparable = is_comparable(result) and result["split"] == _SPLITS[task]
    return Cell(*key, paper, ours, interval, n_samples, "" if ours is not None else "undefined", comparable)


def _errors(folders: Sequence[Path]) -> dict[tuple[str, str, str], str]:
    """What runs that failed said, by task, model and strategy."""
    said = {_key(folder / "config.yaml"): reason for folder, reason in find_errors(folders)}
    return {key: reason for key, reason in said.items() if key is not None}


def _key(path: Path) -> tuple[str, str, str] | None:
    from omegaconf import OmegaConf

    if not path.exists():
        return None
    config = OmegaConf.load(path)
    names = [OmegaConf.select(config, f"{group}.name") for group in ("task", "model", "pruning")]
    return None if None in names else (names[0], names[1], names[2].removesuffix("_13b"))


def print_cells(table: str, rows: Sequence[Cell]) -> None:
    """Print a table, task by task, with the paper's value, ours, the interval and the difference."""
    from rich.console import Console

    console = Console()
    # What a run that failed said would not fit into a cell.
    reasons: dict[str, int] = {}
    tasks = list(dict.fromkeys(row.task for row in rows))
    for task in tasks:
        console.print(_grid(f"{table} of the paper: {task}", [r for r in rows if r.task == task], reasons))
    notes = [f"({number}) {reason}" for reason, number in reasons.items()]
    if any(row.ours is not None and not row.is_comparable for row in rows):
        notes.append("* of another split or of a part, and so another quantity than the paper's")
    notes += [f"note: {_NOTES[task]}" for task in tasks if task in _NOTES]
    for note in notes:
        console.print(note, markup=False, highlight=False)


def _grid(title: str, rows: Sequence[Cell], reasons: dict[str, int]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("model", "pruning"):
        grid.add_column(heading, overflow="fold")
    for heading in ("paper", "ours", "95 %", "diff.", "samples"):
        grid.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        paper = "" if row.paper is None else f"{row.paper:.1f}"
        interval = "" if row.interval is None else f"{row.interval[0]:.1f} to {row.interval[1]:.1f}"
        mark = "" if row.is_comparable else "*"
        ours = _missing(row, reasons) if row.ours is None else f"{row.ours:.1f}{mark}"
        difference = "" if row.ours is None or row.paper is None else f"{row.ours - row.paper:+.1f}"
        n_samples = str(row.n_samples) if row.n_samples else ""
        grid.add_row(row.model, row.pruning, paper, ours, interval, difference, n_samples)
    return grid


def _missing(row: Cell, reasons: dict[str, int]) -> str:
    if len(row.missing) <= _LONGEST:
        return row.missing
    return f"failed ({reasons.setdefault(row.missing, len(reasons) + 1)})"
