"""The comparison as a table on the terminal, its reasons as footnotes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from compare import Figure, Prompts, Requests, Row, unexplained, unneeded
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDTH_OF_FILES = 150


def show(
    figures: Sequence[Figure],
    asked: Sequence[Prompts],
    judged: Sequence[Requests],
    left_out: Sequence[str],
) -> None:
    """Print figures, prompts, the judge's requests, and what nobody expected."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES, highlight=False)
    notes: dict[str, int] = {}

    def why(row: Row) -> str:
        return "" if row.agrees or not row.reason else f"({notes.setdefault(row.reason, len(notes) + 1)})"

    table = Table("task", "metric", "himap's options", "ours", "lmms-eval", "difference", "documents", "why")
    for row in figures:
        documents = f"{row.n_documents - row.n_differ}/{row.n_documents}" if row.n_documents else ""
        cells = (f"{row.ours:.10g}", f"{row.theirs:.10g}", "0" if row.agrees else f"{row.difference:+.6g}")
        table.add_row(row.case, row.metric, _options(row), *cells, documents, why(row))
    console.print(table)
    table = Table("task", "himap's options or family", "equal prompts", "why")
    for one in asked:
        table.add_row(one.case, _options(one), f"{one.n_equal}/{one.n}", why(one))
    console.print(table)
    table = Table("judged task", "equal requests", "himap's settings", "lmms-eval's settings", "why")
    for sent in judged:
        settings = (escape(", ".join(f"{k}={v}" for k, v in one.items())) for one in (sent.ours, sent.theirs))
        table.add_row(sent.case, f"{sent.n_equal}/{sent.n_ours}", *settings, why(sent))
    console.print(table)
    for reason, number in notes.items():
        console.print(f"({number}) {escape(reason)}")
    if left_out:
        console.print(f"Left out, because lmms-eval needs Java for captions: {', '.join(left_out)}.")
    agreeing = [abs(row.difference) for row in figures if row.agrees]
    alike = sum(row.agrees for row in asked)
    console.print(
        f"{len(agreeing)} of {len(figures)} figures agree (the furthest by {max(agreeing, default=0):.1g}), "
        f"prompts in {alike} of {len(asked)} runs."
    )
    for odd in unexplained([*figures, *asked, *judged]):
        console.print(f"UNEXPLAINED: {odd.case} ({_options(odd)})")
    for odd in unneeded([*figures, *asked, *judged]):
        console.print(f"AGREES AFTER ALL: {odd.case} ({_options(odd)}), no reason: {escape(odd.reason)}")


def _options(row: Row) -> str:
    return escape(row.options or "defaults")
