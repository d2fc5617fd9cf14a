"""`himap report DIR...`: tables of what lies below some folders; sweeps are summed up anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from himap.errors import UserError


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="himap report",
        description="Tabulate the results below some folders. Of a sweep, finished or not, the front is "
        "printed and front.csv, summary.md and pareto.png are written anew.",
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="a folder that runs wrote into")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="two runs over the same samples, paired"
    )
    parser.add_argument(
        "--paper", metavar="TABLE", help="beside the values of the paper's table1, table2, table3 or table4"
    )

    def refuse(message: str) -> NoReturn:
        raise UserError(f"himap report: {message} (himap report --help says more).")

    parser.error = refuse  # type: ignore[method-assign]
    given = parser.parse_args(arguments)
    if not given.folders and (given.paper or not given.compare):
        parser.error("give a folder that runs wrote into" + ("" if given.paper else ", or --compare A B"))
    run(given.folders, given.compare, given.paper)


def run(folders: Sequence[Path], compared: tuple[Path, Path] | None = None, paper: str | None = None) -> None:
    """Print what is found; see `main`."""
    if compared:
        from himap.report.pair import pair, print_pair

        print_pair(pair(*compared))
    if folders and paper:
        _print_paper(paper, folders)
    elif folders:
        _print_all(folders)


def _print_paper(table: str, folders: Sequence[Path]) -> None:
    from himap.report.paper import cells, print_cells
    from himap.report.table import collect

    results, _ = collect(folders)  # where nothing ran yet every cell says so
    print_cells(table, cells(table, results, folders))


def _print_all(folders: Sequence[Path]) -> None:
    from himap.report.sweep import write_report
    from himap.report.table import (
        analysis_rows_of,
        find_analyses,
        find_errors,
        find_results,
        print_front,
        print_results,
        rows_of,
    )

    results, sweeps = find_results(folders)
    if results:
        print_results(rows_of(results))
    if analyses := find_analyses(folders):
        print_results(analysis_rows_of(analyses), "analyses")
    for sweep in sweeps:
        print(sweep)
        print_front(write_report(sweep))
    for folder, reason in find_errors(folders):
        print(f"failed: {folder}: {reason}")
