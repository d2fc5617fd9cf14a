"""What an analysis found, and its files: tables as CSV, everything else in analysis.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from himap.analysis.suggest import Suggestion
from himap.files import write_atomic, write_json

Cell = float | int | str | bool | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns; None is an empty cell."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow(["" if cell is None else _shown(cell) for cell in row])
        return text.getvalue()


@dataclass
class Outcome:
    """The summary of an analysis.

    Attributes:
        metrics: name -> number, and `primary` -> the headline number's name.
        ci95: interval of the headline number.
        tables: name -> table; written as `<name>.csv`.
        notes: definitions and findings that a reader of the numbers needs.
        suggestions: proposals for K1 and K2.
        n_used: samples that the summary is about.
        facts: what the figures show beside the tables.
    """

    metrics: dict[str, float | str | None]
    tables: dict[str, Table]
    notes: list[str]
    n_used: int
    ci95: list[float] | None = None
    suggestions: list[Suggestion] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the tables, analysis.json and, where layers are suggested, an option for `sweeps`."""
        for name, table in self.tables.items():
            write_atomic(folder / f"{name}.csv", table.csv())
        content = {
            **facts,
            **self.facts,
            "n_samples": self.n_used,
            "suggestions": [asdict(suggestion) for suggestion in self.suggestions],
        }
        write_json(folder / "analysis.json", content)
        chosen = [suggestion for suggestion in self.suggestions if suggestion.layers]
        if chosen:
            write_atomic(folder / "sweeps" / "suggested.yaml", sweep_option(chosen))


def sweep_option(suggestions: Sequence[Suggestion]) -> str:
    """An option of the group `sweeps`: the usual sweep, begun at the suggested layers."""
    lines = [
        "# @package _global_",
        "# Begins at layers that an analysis suggests.",
    ]
    lines += [f"# {one.source}: {one.reason}." for one in suggestions]
    lines += ["defaults:", "  - shapes_pareto", "  - _self_", "", "search:", "  starts:"]
    for one in suggestions:
        lines.append("    - {" + ", ".join(f"{name}: {layer}" for name, layer in one.layers.items()) + "}")
    return "\n".join(lines) + "\n"


def _shown(cell: float | int | str | bool) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
