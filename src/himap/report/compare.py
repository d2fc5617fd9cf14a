"""The front and the paper's configurations on held-out samples: intervals, paired tests, distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from himap.files import read_jsonl
from himap.metrics.statistics import Interval, bootstrap_difference, mcnemar
from himap.search.front import Point, Relation, hypervolume, pareto, relate
from himap.search.outcome import Evaluated, Measured, Outcome


@dataclass(frozen=True)
class HeldOut:
    """A configuration on the held-out split.

    Attributes:
        point: headline metric and FLOPs share there.
        low: lower end of the metric's 95 % bootstrap interval.
        high: upper end.
        n_samples: samples behind it.
        difference: metric minus that of the unpruned model on the same samples, with a paired interval.
        p_value: of McNemar's test against the unpruned model; None where scores are not right or wrong.
        p_holm: the same, corrected for the number of comparisons (Holm).
    """

    point: Point
    low: float
    high: float
    n_samples: int
    difference: Interval | None = None
    p_value: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Baseline:
    """A configuration of the paper beside the front, on the search split and on the held-out one."""

    name: str
    key: str
    search: Point
    relation: Relation
    heldout: HeldOut | None
    heldout_relation: Relation | None


@dataclass(frozen=True)
class Comparison:
    """What a sweep found, ready for tables and pictures.

    Attributes:
        outcome: the sweep's files.
        heldout: key -> the configuration on the held-out split.
        baselines: the paper's configurations, in the order of the sweep.
        hypervolume: of the front on the search split.
        heldout_hypervolume: of the front's points on the held-out split; None before the check.
        baseline_hypervolume: of the paper's configurations alone, on the search split.
    """

    outcome: Outcome
    heldout: dict[str, HeldOut]
    baselines: list[Baseline]
    hypervolume: float
    heldout_hypervolume: float | None
    baseline_hypervolume: float

    @property
    def front(self) -> list[tuple[Evaluated, HeldOut | None]]:
        """The front's trials by growing FLOPs share, each with its held-out result."""
        return [(trial, self.heldout.get(trial.key)) for trial in self.outcome.front]


def compare(outcome: Outcome) -> Comparison:
    """Work out everything that tables and pictures show of a sweep."""
    front = outcome.front
    wanted = {trial.key for trial in front} | {b.key for b in outcome.baselines.values()}
    heldout = _heldout({key: m for key, m in outcome.heldout.items() if key in wanted}, outcome.folder)
    points = [trial.point for trial in front]
    checked = [heldout[trial.key].point for trial in front if trial.key in heldout]
    checked_front = [checked[i] for i in pareto(checked)]
    baselines = []
    for name, measured in outcome.baselines.items():
        there = heldout.get(measured.key)
        baselines.append(
            Baseline(
                name,
                measured.key,
                measured.point,
                relate(measured.point, points) if points else Relation(False, None, None, 0.0),
                there,
                relate(there.point, checked_front) if there and checked_front else None,
            )
        )
    return Comparison(
        outcome,
        heldout,
        baselines,
        hypervolume(points),
        hypervolume(checked) if checked else None,
        hypervolume([baseline.search for baseline in baselines]),
    )


def _heldout(measured: dict[str, Measured], folder: Path) -> dict[str, HeldOut]:
    plain = _scores(folder / "heldout" / "plain")
    found: dict[str, HeldOut] = {}
    for key, there in measured.items():
        low, high = there.result["ci95"] or (there.point.accuracy, there.point.accuracy)
        difference, p_value = None, None
        scores = _scores(folder / "heldout" / key)
        # A sample that failed in one run has no partner in the other.
        both = sorted(scores.keys() & plain.keys())
        if both and key != "plain":
            mine, others = [scores[i] for i in both], [plain[i] for i in both]
            difference = _scaled(bootstrap_difference(mine, others), there, scores)
            if all(score in (0.0, 1.0) for score in (*mine, *others)):
                p_value = mcnemar([s == 1 for s in mine], [s == 1 for s in others]).p_value
        n_samples = there.result["n_samples"]
        found[key] = HeldOut(there.point, low, high, n_samples, difference, p_value)
    return _with_holm(found)


def _scaled(interval: Interval, measured: Measured, scores: dict[str, float]) -> Interval:
    """From the unit of a sample's score to that of the headline metric, which is a multiple of their mean."""
    mean = sum(scores.values()) / len(scores)
    scale = measured.point.accuracy / mean if mean else 100.0
    return Interval(*(value * scale for value in interval))


def _with_holm(found: dict[str, HeldOut]) -> dict[str, HeldOut]:
    tested = sorted((item.p_value, key) for key, item in found.items() if item.p_value is not None)
    corrected, highest = dict(found), 0.0
    for rank, (p_value, key) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p_value))
        corrected[key] = replace(found[key], p_holm=highest)
    return corrected


def _scores(folder: Path) -> dict[str, float]:
    rows = read_jsonl(folder / "answers.jsonl")
    return {row["id"]: row["score"] for row in rows if row.get("score") is not None}


def metric_name(outcome: Outcome) -> str:
    """The headline metric's name."""
    results: Sequence[Measured] = [*outcome.trials, *outcome.baselines.values()]
    return str(results[0].result["metrics"]["primary"]) if results else "accuracy"
