"""Tables on the terminal: a sweep's front, and all results below some folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from himap.errors import UserError
from himap.report.compare import Comparison, HeldOut, metric_name
from himap.result import Result
from himap.search.outcome import is_sweep
from himap.search.space import Params

Row = dict[str, str]

NOT_COMPARABLE = "not comparable with the whole benchmark; the notes in result.json say why"


def print_front(comparison: Comparison) -> None:
    """Print a sweep's front with its held-out check, and the paper's configurations below it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    axes = comparison.outcome.study["axes"]
    n_trials = len(comparison.outcome.trials)
    table = Table(
        title=f"Pareto front: {len(comparison.front)} of {n_trials} trials",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    metric = metric_name(comparison.outcome)
    for heading in ("trial", *axes, metric, "FLOPs", "held out [95 %]", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial, there in comparison.front:
        table.add_row(
            str(trial.number),
            *_params(trial.params, axes),
            f"{trial.point.accuracy:.1f}",
            f"{trial.point.share:.1%}",
            *_checked(there),
        )
    table.add_section()
    for baseline in comparison.baselines:
        table.add_row(
            baseline.name,
            *("" for _ in axes),
            f"{baseline.search.accuracy:.1f}",
            f"{baseline.search.share:.1%}",
            *_checked(baseline.heldout),
        )
    console = Console()
    console.print(table)
    if comparison.heldout:
        console.print("p: McNemar's test against the unpruned model on the same held-out samples")


def _params(params: Params, names: Sequence[str]) -> list[str]:
    return [value if isinstance(value := params[name], str) else f"{value:g}" for name in names]


def _checked(there: HeldOut | None) -> list[str]:
    if there is None:
        return ["", ""]
    return [f"{there.point.accuracy:.1f} [{there.low:.1f}, {there.high:.1f}]", short_p(there.p_value)]


def short_p(p_value: float | None) -> str:
    """A p-value in three digits; empty where there is none."""
    if p_value is None:
        return ""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def find_results(folders: Sequence[Path]) -> tuple[list[tuple[Path, dict[str, Any]]], list[Path]]:
    """Results and sweeps below folders; the results within a sweep belong to it and are not listed again.

    Analyses are no evaluations and left to `find_analyses`.

    Raises:
        UserError: a folder is missing, a result cannot be read, or nothing lies below any of them.
    """
    results, sweeps = collect(folders)
    if not results and not sweeps and not find_analyses(folders):
        places = " ".join(map(str, folders))
        if errors := find_errors(folders):
            raise UserError(
                f"himap report {places}: no result; {len(errors)} failed, the first with: {errors[0][1]}"
            )
        raise UserError(
            f"himap report {places}: no result.json or study.json below (run himap evaluate first)."
        )
    return results, sweeps


def collect(folders: Sequence[Path]) -> tuple[list[tuple[Path, dict[str, Any]]], list[Path]]:
    """As `find_results`; that there is nothing is no error.

    Raises:
        UserError: a folder is missing, or a result cannot be read.
    """
    results: list[tuple[Path, dict[str, Any]]] = []
    sweeps: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"himap report {folder}: no such folder (give one that a run wrote into).")
        for path in _walk(folder):
            if path.name == "study.json":
                sweeps.append(path.parent)
            elif not _is_analysis(path.parent):
                results.append((path.parent, Result.load(path).to_dict()))
    return results, sweeps


def find_analyses(folders: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """The results of `himap analyze` below folders; each has its analysis.json beside it."""
    paths = [path for folder in folders for path in _walk(folder) if _is_analysis(path.parent)]
    return [(path.parent, Result.load(path).to_dict()) for path in paths]


def find_errors(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Runs below folders that failed without a result, and what they said."""
    paths = [path for folder in folders for path in sorted(folder.rglob("error.txt"))]
    return [
        (path.parent, path.read_text(encoding="utf-8").strip())
        for path in paths
        if not (path.parent / "result.json").exists()
    ]


def _is_analysis(folder: Path) -> bool:
    return (folder / "analysis.json").exists()


def _walk(folder: Path) -> Iterator[Path]:
    if is_sweep(folder):
        yield folder / "study.json"
        return
    if (folder / "result.json").exists():
        yield folder / "result.json"
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "wandb"):
        yield from _walk(inner)


def rows_of(results: Sequence[tuple[Path, dict[str, Any]]]) -> list[Row]:
    """One row of text a result."""
    rows = []
    for folder, result in results:
        metrics, flops = result.get("metrics") or {}, result["flops"]
        value = metrics.get(metrics.get("primary"))
        low, high = result.get("ci95") or (None, None)
        failed = f" ({result['n_failed']} failed)" if result.get("n_failed") else ""
        rows.append(
            {
                "model": result["model"],
                "pruning": result["pruning"],
                "task": result.get("task", ""),
                "split": result.get("split", ""),
                "samples": f"{result['n_samples']}{failed}" if result.get("n_samples") else "",
                "metric": str(metrics.get("primary", "")),
                "value": "" if value is None else f"{value:.2f}{'' if is_comparable(result) else '*'}",
                "95 % interval": "" if low is None else f"{low:.1f} to {high:.1f}",
                # Answers that were scored alone have no cost.
                "TFLOPs (paper)": f"{flops['paper_tflops']:.3g}" if flops else "",
                "share (paper)": f"{flops['paper_share']:.1%}" if flops else "",
                "share (prefill)": f"{flops['prefill_share']:.1%}" if flops else "",
                "folder": str(folder),
            }
        )
    return rows


def is_comparable(result: dict[str, Any]) -> bool:
    """Whether nothing in the result's notes forbids to set its value beside others (CIDEr under a limit)."""
    return not any("not comparable" in note for note in result.get("notes") or ())


def analysis_rows_of(analyses: Sequence[tuple[Path, dict[str, Any]]]) -> list[Row]:
    """One row of text an analysis; its value is a quantity of its own, not an accuracy."""
    kept = ("model", "task", "split", "samples", "metric", "value", "95 % interval", "folder")
    rows = []
    for folder, result in analyses:
        about = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
        (row,) = rows_of([(folder, result)])
        rows.append({"analysis": about["settings"]["name"], **{key: row[key] for key in kept}})
    return rows


def print_results(rows: Sequence[Row], title: str = "results") -> None:
    """Print the rows of `rows_of` or `analysis_rows_of`; what all have in common stands above them."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{len(rows)} {title}")
    common, rest = in_common(rows)
    if rest:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        numbers = ("samples", "value", "95 % interval", "TFLOPs (paper)", "share (paper)", "share (prefill)")
        for heading in rest[0]:
            justify: Literal["left", "right"] = "right" if heading in numbers else "left"
            names = heading in ("pruning", "task")
            table.add_column(heading, justify=justify, overflow="fold", no_wrap=names)
        for row in rest:
            table.add_row(*row.values())
        console.print(table)
    for key, value in common.items():
        console.print(f"{key}: {value}", markup=False, highlight=False, soft_wrap=True)
    if any(row["value"].endswith("*") for row in rows):
        console.print(f"* {NOT_COMPARABLE}", markup=False, highlight=False)


def in_common(rows: Sequence[Row]) -> tuple[Row, list[Row]]:
    """What all rows say alike (of their folders: the one that holds them all), and the rest of each row.

    Of a single row everything.
    """
    if len(rows) < 2:
        return {key: value for row in rows for key, value in row.items() if value}, []
    names = {key for key in rows[0] if len({row[key] for row in rows}) == 1} - {"pruning", "task", "value"}
    root = os.path.commonpath([Path(row["folder"]).absolute() for row in rows])
    common = {key: rows[0][key] for key in rows[0] if key in names and rows[0][key]} | {"folder": root}
    rest = [{key: value for key, value in row.items() if key not in names} for row in rows]
    return common, [{**row, "folder": os.path.relpath(row["folder"], root)} for row in rest]
