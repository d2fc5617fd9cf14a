"""The next configuration where Optuna's sampler does not choose: for `grid` and `ehvi`, or if it repeats."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from himap.search.front import Point
from himap.search.promise import Chooser
from himap.search.space import Params, Space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_MAX_DRAWS = 2000


def known_of(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """Key -> number of what is evaluated or being evaluated; what failed may be tried again."""
    from optuna.trial import TrialState

    known: dict[str, int] = {}
    for trial in trials:
        there = trial.state in (TrialState.COMPLETE, TrialState.RUNNING)
        if there and "key" in trial.user_attrs and "copy_of" not in trial.user_attrs:
            known.setdefault(trial.user_attrs["key"], trial.number)
    return known


def taken(trials: Sequence[FrozenTrial]) -> int:
    """Configurations that are evaluated or being evaluated: what the budget counts."""
    from optuna.trial import TrialState

    return sum(t.state != TrialState.WAITING and "copy_of" not in t.user_attrs for t in trials)


def waiting(trials: Sequence[FrozenTrial]) -> int:
    """Configurations that the search starts with and nobody has begun."""
    from optuna.trial import TrialState

    return sum(trial.state == TrialState.WAITING for trial in trials)


@dataclass
class Proposer:
    """Chooses the next configuration of a study where its sampler is not to choose it.

    Attributes:
        sampler: the search's sampler.
        seed: of what is drawn.
        chooser: for `ehvi`.
    """

    space: Space
    sampler: str
    seed: int
    chooser: Chooser

    def __post_init__(self) -> None:
        if self.sampler == "ehvi":
            # Now, and not at the first choice, for which all other workers would wait.
            import himap.search.surrogate  # noqa: F401

    @property
    def own(self) -> bool:
        """Whether configurations come from here whenever none waits in the study."""
        return self.sampler in ("grid", "ehvi")

    def choose(self, trials: Sequence[FrozenTrial], group: Sequence[Params]) -> Params | None:
        """A new configuration, or None where the space is exhausted; a random one for Optuna's samplers.

        Args:
            trials: all of the study.
            group: what the configuration will be evaluated with.
        """
        return self._best(trials, group) if self.sampler == "ehvi" else self._unseen(trials)

    def _unseen(self, trials: Sequence[FrozenTrial]) -> Params | None:
        known = known_of(trials)
        rng = random.Random(f"{self.seed}-{len(known)}")
        if self.sampler == "grid":
            candidates = list(self.space.grid())
            random.Random(self.seed).shuffle(candidates)
        else:
            candidates = [self.space.draw(rng) for _ in range(_MAX_DRAWS)]
        for params in candidates:
            if self.space.key(self.space.strategy(params)) not in known:
                return params
        return None

    def _best(self, trials: Sequence[FrozenTrial], group: Sequence[Params]) -> Params | None:
        from optuna.trial import TrialState

        trials = [trial for trial in trials if "copy_of" not in trial.user_attrs]
        known = [
            (self.space.read(trial.params), Point(*trial.values))
            for trial in trials
            if trial.state == TrialState.COMPLETE
        ]
        running = [trial for trial in trials if trial.state == TrialState.RUNNING and "dK" in trial.params]
        # What failed would fail again, and promises as much as ever.
        taken = {trial.user_attrs["key"] for trial in trials if "key" in trial.user_attrs}
        return self.chooser.choose(
            known,
            [self.space.read(trial.params) for trial in running],
            group,
            taken,
            random.Random(f"{self.seed}-{len(trials)}"),
        )
