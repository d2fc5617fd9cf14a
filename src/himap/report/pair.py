"""Two runs over the same samples: their difference with a paired interval, and McNemar's test."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himap.errors import UserError
from himap.files import read_jsonl
from himap.metrics.mme import QUESTIONS_PER_IMAGE
from himap.metrics.statistics import Interval, McNemar, bootstrap_difference, bootstrap_statistic, mcnemar
from himap.report.table import short_p
from himap.result import Result
from himap.tasks.intervals import category_interval


@dataclass(frozen=True)
class Pair:
    """What `himap report --compare` says.

    Attributes:
        first: one run.
        second: the other.
        n_both: samples that both runs scored.
        n_one: samples that only one of them scored; they are left out.
        means: mean score of each over the common samples, times `scale`.
        difference: of the means, first minus second, with its paired interval.
        scale: 100 where a sample's score is a share, 1 where it is in the metric's own unit.
        mcnemar: of right and wrong; None where scores are neither.
        headline: difference of the headline metric where that is no mean over samples but over categories
            (MME's points, POPE's macro accuracy), over the common samples.
        is_mean: whether the headline metric is the mean score.
    """

    first: Result
    second: Result
    n_both: int
    n_one: int
    means: tuple[float, float]
    difference: Interval
    scale: float
    mcnemar: McNemar | None
    headline: Interval | None
    is_mean: bool

    @property
    def notes(self) -> list[str]:
        """What a reader must know about these numbers."""
        notes = []
        if self.n_one:
            notes.append(f"{self.n_one} samples were scored by one run only and are left out")
        if not self.is_mean and self.headline is None:
            notes.append(
                f"{self.first.metrics['primary']} is no plain mean over samples: interval and test are of "
                "the samples' mean score"
            )
        return notes


def pair(first: Path, second: Path) -> Pair:
    """Compare the runs in two folders, each with result.json and answers.jsonl.

    Raises:
        UserError: a file is missing, or the runs have another task, split or no sample in common.
    """
    one, other = Result.load(first / "result.json"), Result.load(second / "result.json")
    for key in ("task", "split"):
        if getattr(one, key) != getattr(other, key):
            raise UserError(
                f"himap report --compare {first} {second}: {key} is {getattr(one, key)} and "
                f"{getattr(other, key)} (compare runs over the same samples)."
            )
    rows, others = _rows(first), _rows(second)
    both = [id for id in rows if id in others]
    if not both:
        raise UserError(f"himap report --compare {first} {second}: no sample was scored by both.")
    a = np.array([rows[id]["score"] for id in both], dtype=float)
    b = np.array([others[id]["score"] for id in both], dtype=float)
    scale = _scale(one, rows)
    groups = [str(rows[id].get("group") or id) for id in both]
    found = _difference(a, b, groups)
    binary = bool(np.isin(np.concatenate([a, b]), (0, 1)).all())
    return Pair(
        one,
        other,
        len(both),
        len(rows.keys() ^ others.keys()),
        (float(a.mean()) * scale, float(b.mean()) * scale),
        Interval(*(value * scale for value in found)),
        scale,
        mcnemar([bool(x) for x in a], [bool(x) for x in b]) if binary else None,
        _headline(one, a, b, [str(rows[id].get("category") or "") for id in both], groups),
        _is_mean(one, scale * float(np.mean([row["score"] for row in rows.values()]))),
    )


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "answers.jsonl"
    if not path.exists():
        raise UserError(f"{path}: no such file (himap evaluate and himap score write it).")
    try:
        return {row["id"]: row for row in read_jsonl(path) if row.get("score") is not None}
    except (json.JSONDecodeError, KeyError) as error:
        raise UserError(f"{path}: is no file of answers ({error}).") from error


def _difference(a: NDArray[np.float64], b: NDArray[np.float64], groups: list[str]) -> Interval:
    """Interval of mean(a) - mean(b); samples of a group (MME's pairs) are drawn together."""
    if len(set(groups)) == len(groups):
        return bootstrap_difference(a, b)

    def statistic(drawn: NDArray[np.intp]) -> float:
        return float((a[drawn] - b[drawn]).mean())

    return bootstrap_statistic(statistic, len(a), groups=groups)


def _headline(
    result: Result,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    categories: list[str],
    groups: list[str],
) -> Interval | None:
    """Interval of the difference of a headline metric that averages within categories first."""
    metric = result.metrics["primary"]
    if metric == "macro_accuracy" and all(categories):
        return _over_categories(100 * (a - b), categories, None, mean=True)
    if result.task == "mme" and metric == "total":
        # An image of which one question failed has no pair.
        n_of = Counter(groups)
        whole = [i for i, group in enumerate(groups) if n_of[group] == QUESTIONS_PER_IMAGE]
        if not whole:
            return None
        pairs = [groups[i] for i in whole]
        points = 100 * (_with_pairs(a[whole], pairs) - _with_pairs(b[whole], pairs))
        return _over_categories(points, [categories[i] for i in whole], pairs, mean=False)
    return None


def _with_pairs(right: NDArray[np.float64], groups: list[str]) -> NDArray[np.float64]:
    """What each question adds to accuracy + accuracy_plus: 1 if right, 1 more if both of its image are."""
    n_right: dict[str, float] = {}
    for group, one in zip(groups, right, strict=True):
        n_right[group] = n_right.get(group, 0.0) + one
    return right + np.array([n_right[group] == QUESTIONS_PER_IMAGE for group in groups])


def _over_categories(
    values: NDArray[np.float64], categories: list[str], groups: list[str] | None, *, mean: bool
) -> Interval:
    by_category: dict[str, list[float]] = {}
    for value, category in zip(values, categories, strict=True):
        by_category.setdefault(category, []).append(float(value))
    means = [float(np.mean(one)) for one in by_category.values()]
    total = float(np.mean(means)) if mean else float(np.sum(means))
    return Interval(total, *category_interval(values, categories, groups, mean=mean))


def _scale(result: Result, rows: dict[str, dict[str, Any]]) -> float:
    """result.json does not keep the scale: it is 1 where the mean score is the metric itself."""
    mean = float(np.mean([row["score"] for row in rows.values()]))
    return 1.0 if abs(mean - result.primary) < abs(100 * mean - result.primary) else 100.0


def _is_mean(result: Result, mean: float) -> bool:
    return abs(result.primary - mean) <= 0.01 * max(1.0, abs(mean))


def print_pair(pair: Pair) -> None:
    """Print both runs, the difference, its interval and the test."""
    from rich.console import Console
    from rich.table import Table

    metric = str(pair.first.metrics["primary"])
    table = Table(title=f"{pair.first.task} ({pair.first.split}), {pair.n_both} samples")
    for heading in ("", "first", "second", "first - second"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("model", pair.first.model, pair.second.model, "")
    table.add_row("pruning", pair.first.pruning, pair.second.pruning, "")
    a, b = pair.first.primary, pair.second.primary
    table.add_row(metric, f"{a:.2f}", f"{b:.2f}", f"{a - b:+.2f}")
    if pair.headline is not None:
        table.add_row("95 % interval, paired", "", "", _ends(pair.headline))
    table.add_row(
        "mean score", f"{pair.means[0]:.2f}", f"{pair.means[1]:.2f}", f"{pair.difference.value:+.2f}"
    )
    table.add_row("95 % interval, paired", "", "", _ends(pair.difference))
    if pair.mcnemar is not None:
        test = pair.mcnemar
        table.add_row("right where the other is wrong", str(test.n_only_first), str(test.n_only_second), "")
        kind = "exact" if test.exact else "chi-square"
        table.add_row(f"McNemar's p ({kind})", "", "", short_p(test.p_value))
    console = Console()
    console.print(table)
    for note in pair.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def _ends(interval: Interval) -> str:
    return f"{interval.low:+.2f} to {interval.high:+.2f}"
