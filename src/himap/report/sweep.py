"""Everything that a sweep's folder is summed up in: front.csv, summary.md, pareto.png."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from himap.files import write_atomic
from himap.report.compare import Comparison, HeldOut, compare, metric_name
from himap.report.plot import draw_pareto, label
from himap.search.front import Relation
from himap.search.outcome import Outcome, read_outcome

COLUMNS = ["trial", "K1", "R1", "K2", "R2", "accuracy", "flops_share"]
HELDOUT_COLUMNS = ["heldout_accuracy", "heldout_low", "heldout_high"]


def write_report(folder: Path) -> Comparison:
    """Sum a sweep's folder up, finished or not: writes front.csv, summary.md and pareto.png into it."""
    comparison = compare(read_outcome(folder))
    write_atomic(folder / "front.csv", front_csv(comparison))
    if comparison.outcome.trials or comparison.outcome.baselines:
        draw_pareto(comparison, folder / "pareto.png")
    write_atomic(folder / "summary.md", summary(comparison))
    return comparison


def front_csv(comparison: Comparison) -> str:
    """The front by growing FLOPs: accuracy in the task's unit (percent), FLOPs as a share of the plain model.

    Points that the held-out check left out have empty cells there. Searched criteria are further columns.
    """
    criteria = [name for name in comparison.outcome.study["axes"] if name.startswith("C")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *HELDOUT_COLUMNS, *criteria])
    for trial, there in comparison.front:
        params = [trial.params[name] for name in ("K1", "R1", "K2", "R2")]
        checked = ["", "", ""]
        if there is not None:
            checked = [f"{value:.4f}" for value in (there.point.accuracy, there.low, there.high)]
        writer.writerow(
            [
                trial.number,
                *params,
                f"{trial.point.accuracy:.4f}",
                f"{trial.point.share:.6f}",
                *checked,
                *(trial.params[name] for name in criteria),
            ]
        )
    return text.getvalue()


def summary(comparison: Comparison) -> str:
    """summary.md: what was searched, the front, the paper's configurations beside it, how sure that is."""
    outcome = comparison.outcome
    parts = [
        f"# Sweep {outcome.folder.name}",
        _searched(outcome),
        "## Front",
        _front_table(comparison),
        "## The paper's configurations beside the front",
        _baseline_tables(comparison),
        "## Hypervolume",
        _hypervolumes(comparison),
        "## Notes",
        _notes(comparison),
        "## Environment and settings",
        _environment(outcome),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _searched(outcome: Outcome) -> str:
    study, search = outcome.study, outcome.study["search"]
    lines = []
    for name in study["axes"]:
        axis = search["axes"][name]
        if isinstance(axis, list):
            lines.append(f"- {name}: {', '.join(axis)}")
        else:
            step = f" in steps of {axis['step']}" if axis.get("step") else ""
            lines.append(f"- {name}: {axis['low']} to {axis['high']}{step}")
    first = next(iter([*outcome.trials, *outcome.baselines.values()]), None)
    where = ""
    if first is not None:
        result = first.result
        where = f" of {result['model']} on {result['n_samples']} {study['split']} samples of {result['task']}"
    cost = "the paper's Eq. 10" if search["flops"] == "paper" else "the decoder's real prefill"
    return (
        f"{len(outcome.trials)} configurations{where}, sampler {search['sampler']} (seed {search['seed']}); "
        f"{len(outcome.failed)} failed, {outcome.n_copies} proposals equalled a known configuration. "
        f"Objectives: {metric_name(outcome)} (more is better) and the share of the unpruned model's FLOPs by "
        f"{cost} (less is better).\n\n" + "\n".join(lines)
    )


def _front_table(comparison: Comparison) -> str:
    names = comparison.outcome.study["axes"]
    rows = []
    for trial, there in comparison.front:
        rows.append(
            [
                str(trial.number),
                *(
                    f"{trial.params[name]:g}" if _is_number(trial.params[name]) else str(trial.params[name])
                    for name in names
                ),
                ", ".join(f"{n:g} after {layer:g}" for layer, n in trial.result["kept"]),
                f"{trial.point.accuracy:.2f}",
                f"{trial.point.share:.1%}",
                *_heldout_cells(there),
            ]
        )
    heading = ["trial", *names, "image tokens", metric_name(comparison.outcome), "FLOPs"]
    return _markdown([*heading, "held out", "against none", "p", "p (Holm)"], rows)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _heldout_cells(there: HeldOut | None) -> list[str]:
    if there is None:
        return ["", "", "", ""]
    difference = ""
    if there.difference is not None:
        value, low, high = there.difference
        difference = f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
    tests = ["" if p is None else f"{p:.2g}" for p in (there.p_value, there.p_holm)]
    return [f"{there.point.accuracy:.2f} [{there.low:.2f}, {there.high:.2f}]", difference, *tests]


def _baseline_tables(comparison: Comparison) -> str:
    metric = metric_name(comparison.outcome)
    beside = ["front at no more FLOPs", "front's FLOPs at no less", "distance", "position"]
    searched, checked = [], []
    for baseline in comparison.baselines:
        searched.append(
            [
                label(baseline.name),
                f"{baseline.search.accuracy:.2f}",
                f"{baseline.search.share:.1%}",
                *_relation_cells(baseline.relation),
            ]
        )
        if baseline.heldout is not None and baseline.heldout_relation is not None:
            cells = _heldout_cells(baseline.heldout)
            checked.append([label(baseline.name), *cells, *_relation_cells(baseline.heldout_relation)])
    tables = [
        f"On the {comparison.outcome.study['split']} split:",
        _markdown(["strategy", metric, "FLOPs", *beside], searched),
    ]
    if checked:
        tables += [
            "On the held-out split, beside the front's points there:",
            _markdown(["strategy", metric, "against none", "p", "p (Holm)", *beside], checked),
        ]
    tables.append(
        "Distance: from the point to the edge of what the front dominates, in the plane of accuracy / 100 "
        "and FLOPs share; positive behind the front, negative ahead of it."
    )
    return "\n\n".join(tables)


def _relation_cells(relation: Relation) -> list[str]:
    gain = "nothing there" if relation.gain is None else f"{relation.gain:+.2f}"
    share = "not reached" if relation.share is None else f"{relation.share:.1%}"
    position = "dominated" if relation.dominated else "ahead" if relation.distance < 0 else "on the front"
    return [gain, share, f"{relation.distance:+.3f}", position]


def _hypervolumes(comparison: Comparison) -> str:
    lines = [
        f"- front, search split: {comparison.hypervolume:.4f}",
        f"- the paper's configurations alone, search split: {comparison.baseline_hypervolume:.4f}",
    ]
    if comparison.heldout_hypervolume is not None:
        lines.insert(1, f"- the front's checked points, held-out split: {comparison.heldout_hypervolume:.4f}")
    return (
        "Area dominated up to the reference point accuracy 0, FLOPs share 1 (accuracy as a fraction), at "
        "most 1.\n\n" + "\n".join(lines)
    )


def _notes(comparison: Comparison) -> str:
    outcome = comparison.outcome
    notes = []
    checked = [(trial, there) for trial, there in comparison.front if there is not None]
    if checked:
        fall = sum(trial.point.accuracy - there.point.accuracy for trial, there in checked) / len(checked)
        notes.append(
            f"A front is made of the luckiest measurements: from the search to the held-out split its points "
            f"fall by {fall:.2f} on average. Compare held-out numbers."
        )
        notes.append(
            "Intervals are 95 % percentile bootstrap over samples; differences are paired over the same "
            "samples; p is McNemar's test against `none`, then corrected for all comparisons of this sweep."
        )
    if 0 < len(checked) < len(comparison.front):
        notes.append(
            f"{len(checked)} of {len(comparison.front)} points of the front were checked, evenly spread "
            "(search.heldout_points)."
        )
    budget = outcome.study["search"]["trials"]
    n_ended = len(outcome.trials) + len(outcome.failed)
    if n_ended < budget:
        notes.append(
            f"{n_ended} of {budget} trials have ended: the sweep was stopped or its space is exhausted."
        )
    for record, error in outcome.failed:
        notes.append(f"Trial {record.number} failed: {error}")
    n_failed = sum(trial.result["n_failed"] for trial in outcome.trials)
    if n_failed:
        notes.append(f"{n_failed} samples failed over all trials; they are in no metric.")
    return "\n".join(f"- {note}" for note in notes)


def _environment(outcome: Outcome) -> str:
    results = [*outcome.trials, *outcome.baselines.values()]
    facts = dict(results[-1].result["environment"]) if results else {}
    lines = [f"- {key}: {value}" for key, value in facts.items()]
    lines += [f"- `{key}`: {value}" for key, value in outcome.study["identity"].items()]
    return "\n".join(lines)


def _markdown(heading: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
