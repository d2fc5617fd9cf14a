"""`himap report DIR...`: tables of what lies below some folders; sweeps are summed up anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="himap report",
        description="Tabulate the results below some folders. Of a sweep, finished or not, the front is "
        "printed and front.csv, summary.md and pareto.png are written anew.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a folder that runs wrote into")
    run(parser.parse_args(arguments).folders)


def run(folders: Sequence[Path]) -> None:
    """Print what is found; see `main`."""
    from himap.report.sweep import write_report
    from himap.report.table import find_results, print_front, print_results, rows_of

    results, sweeps = find_results(folders)
    if results:
        print_results(rows_of(results))
    for sweep in sweeps:
        print(sweep)
        print_front(write_report(sweep))
