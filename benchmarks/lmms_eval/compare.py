"""What two evaluators say of the same answers, side by side: figures, documents, prompts. Runs nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Both sum doubles, in different orders: the last bits may differ, a sixteenth digit at most.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Figure:
    """A metric in himap's unit on both sides.

    Attributes:
        case: lmms-eval's task as it was run.
        metric: lmms-eval's name of the metric.
        options: himap's overrides in this run; empty for its defaults.
        difference: ours - theirs.
        n_documents: documents whose scores were compared, 0 where lmms-eval logs none.
        n_differ: of these, how many have another score.
        reason: why the two may differ in this run; empty where they must not.
    """

    case: str
    metric: str
    options: str
    ours: float
    theirs: float
    difference: float
    n_documents: int
    n_differ: int
    reason: str

    @property
    def agrees(self) -> bool:
        """Equal but for rounding, and so is each document's score."""
        same = math.isclose(self.ours, self.theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return same and self.n_differ == 0


@dataclass(frozen=True)
class Prompts:
    """Prompts of one run: how many are equal, the first that are not, and why they may differ."""

    case: str
    options: str
    n: int
    n_equal: int
    ours: str
    theirs: str
    reason: str

    @property
    def agrees(self) -> bool:
        return self.n == self.n_equal


@dataclass(frozen=True)
class Requests:
    """What was sent to a judge: how many messages are equal, the settings around them, why they may differ.

    Attributes:
        n_ours: different messages that we sent.
        n_theirs: those of lmms-eval.
        n_equal: messages that both sent.
        ours: setting -> its value, or all of them where they change; `system` lists system messages.
        theirs: those of lmms-eval; they may differ without a reason, because the judge here overlooks them.
    """

    case: str
    n_ours: int
    n_theirs: int
    n_equal: int
    ours: dict[str, Any]
    theirs: dict[str, Any]
    reason: str
    options: str = ""

    @property
    def agrees(self) -> bool:
        return self.n_ours == self.n_theirs == self.n_equal


Row = Figure | Prompts | Requests


def figure(
    case: str,
    metric: str,
    options: str,
    ours: float,
    theirs: float,
    documents: tuple[Sequence[float], Sequence[float]] = ((), ()),
    reason: str = "",
) -> Figure:
    """Put a metric's two values side by side.

    Args:
        documents: our scores and theirs, one for each document; empty where there are none.

    Raises:
        ValueError: the two score another number of documents.
    """
    pairs = list(zip(*documents, strict=True))
    n_differ = sum(not math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for a, b in pairs)
    return Figure(case, metric, options, ours, theirs, ours - theirs, len(pairs), n_differ, reason)


def value(metrics: Mapping[str, float], name: str) -> float:
    """A metric, or the sum of several joined by `+`.

    Raises:
        KeyError: there is none of this name.
    """
    return sum(metrics[part] for part in name.split("+"))


def prompts(case: str, options: str, ours: Sequence[str], theirs: Sequence[str], reason: str = "") -> Prompts:
    """Compare prompts character by character.

    Raises:
        ValueError: one side has more of them.
    """
    different = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    first = different[0] if different else ("", "")
    return Prompts(case, options, len(ours), len(ours) - len(different), *first, reason)


def unexplained(rows: Sequence[Row]) -> list[Row]:
    """The rows that differ and have no reason to."""
    return [row for row in rows if not row.agrees and not row.reason]


def unneeded(rows: Sequence[Row]) -> list[Row]:
    """The rows whose reason explains nothing: no row of this run and reason differs."""
    needed = {(row.case, row.options, row.reason) for row in rows if not row.agrees}
    return [row for row in rows if row.reason and (row.case, row.options, row.reason) not in needed]


def requests(
    case: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], reason: str = ""
) -> Requests:
    """Compare the bodies of chat completions; a message that was sent again counts once."""
    a, b = ({body["messages"][-1]["content"] for body in bodies} for bodies in (ours, theirs))
    return Requests(case, len(a), len(b), len(a & b), _settings(ours), _settings(theirs), reason)


def _settings(bodies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each setting's value, or all of them where they change."""
    seen: dict[str, list[Any]] = {}
    for body in bodies:
        system = [one["content"] for one in body["messages"][:-1]]
        for key, one in {**body, "system": system}.items():
            if key != "messages" and one not in seen.setdefault(key, []):
                seen[key].append(one)
    return {key: values[0] if len(values) == 1 else values for key, values in seen.items()}


def record(row: Row) -> dict[str, Any]:
    """A row as it is kept; a reason only where there is a difference to explain."""
    kept = asdict(row) | {"agrees": row.agrees}
    return kept | {"reason": "" if row.agrees else row.reason}
