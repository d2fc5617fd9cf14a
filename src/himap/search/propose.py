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
    from optuna import Study
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


@dataclass
class Proposer:
    """Enqueues the next configuration of a study where its sampler is not to choose it.

    Attributes:
        sampler: the search's sampler.
        seed: of what is drawn.
        chooser: for `ehvi`.
    """

    study: Study
    space: Space
    sampler: str
    seed: int
    chooser: Chooser

    def propose(self, group: Sequence[Params], force: bool) -> bool:
        """Prepare the study for the next `ask`; False when the space is exhausted.

        Args:
            group: what the configuration will be evaluated with.
            force: take a new configuration, because the sampler only repeats known ones.
        """
        from optuna.trial import TrialState

        if not force and self.sampler not in ("grid", "ehvi"):
            return True
        if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return True
        params = self._chosen(group) if self.sampler == "ehvi" else self._unseen()
        if params is None:
            return False
        self.study.enqueue_trial(self.space.fixed(params))
        return True

    def _unseen(self) -> Params | None:
        known = known_of(self.study.get_trials(deepcopy=False))
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

    def _chosen(self, group: Sequence[Params]) -> Params | None:
        from optuna.trial import TrialState

        trials = [
            trial for trial in self.study.get_trials(deepcopy=False) if "copy_of" not in trial.user_attrs
        ]
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
