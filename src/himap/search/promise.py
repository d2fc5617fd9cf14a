"""What a configuration promises to the front: its FLOPs are known, its accuracy is guessed from others."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from himap.search.front import Point, pareto
from himap.search.group import Layers, Units
from himap.search.space import Params, Space
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.search.surrogate import Surrogate

Known = Sequence[tuple[Params, Point]]
"""Configurations with what was measured."""

# Below so many known configurations a guess is worth nothing.
_FEWEST = 6
# Candidates that are compared for each choice.
_N_CANDIDATES = 900
# Promises are guesses: what lacks at most this share of the best counts as equal, and the cheapest is taken.
_EQUAL = 0.25
_MOST_EQUAL = 200
# The guess's parameters are fitted again after so many new results.
_FIT_AFTER = 8


class Candidate(NamedTuple):
    """A configuration, the strategy that it stands for, and that one's key."""

    params: Params
    strategy: Strategy
    key: str


@dataclass
class Chooser:
    """Chooses configurations by the hypervolume that they are expected to add to the front.

    The share of FLOPs of a configuration is arithmetic, so only accuracy is modelled, by a Gaussian process.
    Of configurations that promise about the same, the one that adds least to a pass over the group is taken.

    Attributes:
        cost: share of FLOPs of a strategy, the one that the search has as its objective.
        units: what a strategy adds to a group's pass.
    """

    space: Space
    cost: Callable[[Strategy], float]
    units: Units
    _shares: dict[str, float] = field(default_factory=dict, init=False)
    _surrogate: Surrogate | None = field(default=None, init=False)
    _n_fitted: int = field(default=0, init=False)

    def choose(
        self,
        known: Known,
        pending: Sequence[Params],
        group: Sequence[Params],
        taken: Collection[str],
        rng: random.Random,
    ) -> Params | None:
        """The next configuration, or None where no new one was found.

        Args:
            known: what was evaluated.
            pending: what is being evaluated, by whomever; taken for as good as it is guessed to be.
            group: the part of it that this choice will be evaluated with.
            taken: keys of configurations that must not be chosen again.
        """
        candidates = self._candidates(known, group, taken, rng)
        if not candidates:
            return None
        if len(known) < _FEWEST:
            return candidates[0].params
        gains = self._gains(known, pending, candidates)
        best = sorted(range(len(candidates)), key=lambda i: -gains[i])[:_MOST_EQUAL]
        equal = [candidates[i] for i in best if gains[i] >= (1 - _EQUAL) * gains[best[0]]]
        shared: Layers = {}
        for params in group:
            shared |= self.units.layers(self.space.strategy(params))
        return min(equal, key=lambda candidate: self.units.new(candidate.strategy, shared)).params

    def _candidates(
        self, known: Known, group: Sequence[Params], taken: Collection[str], rng: random.Random
    ) -> list[Candidate]:
        """New configurations: from anywhere, near the front, and beginning like others of the group."""
        front = [known[i][0] for i in pareto([point for _, point in known])]
        found: dict[str, Candidate] = {}
        for number in range(_N_CANDIDATES):
            params = self.space.draw(rng)
            if number % 3 == 1 and front:
                keep = rng.sample(self.space.names, rng.randint(1, len(self.space.names) - 1))
                params |= {name: value for name, value in rng.choice(front).items() if name in keep}
            elif number % 3 == 2 and group:
                first = [name for name in self.space.names if name[1] == "1"]
                params |= {name: value for name, value in rng.choice(group).items() if name in first}
            if int(params["K1"]) < int(params["K2"]):
                candidate = self._candidate(params)
                if candidate.key not in taken:
                    found.setdefault(candidate.key, candidate)
        return list(found.values())

    def _candidate(self, params: Params) -> Candidate:
        strategy = self.space.strategy(params)
        return Candidate(params, strategy, self.space.key(strategy))

    def _gains(self, known: Known, pending: Sequence[Params], candidates: Sequence[Candidate]) -> list[float]:
        """Expected hypervolume that each candidate adds to what is known and pending."""
        import numpy as np

        from himap.search.surrogate import Surrogate, expected_gain

        rows = np.array([self._features(params) for params, _ in known])
        accuracy = np.array([point.accuracy / 100 for _, point in known])
        if self._surrogate is None:
            self._surrogate = Surrogate(self._axes())
        if len(known) >= self._n_fitted + _FIT_AFTER or self._n_fitted == 0:
            self._surrogate.fit(rows, accuracy)
            self._n_fitted = len(known)
        self._surrogate.learn(rows, accuracy)
        if pending:
            waiting = np.array([self._features(params) for params in pending])
            self._surrogate.believe(waiting)
            rows = np.concatenate([rows, waiting])
        shares = [
            *(point.share for _, point in known),
            *(self._share(self._candidate(params)) for params in pending),
        ]
        # The measured accuracies are luck in part; the front of the guesses has less of it.
        means, _ = self._surrogate.guess(rows)
        points = [Point(100 * float(mean), share) for mean, share in zip(means, shares, strict=True)]
        front = [points[i] for i in pareto(points)]
        rows = np.array([self._features(candidate.params) for candidate in candidates])
        means, deviations = self._surrogate.guess(rows)
        own = np.array([self._share(candidate) for candidate in candidates])
        highest = max(1.0, float(accuracy.max()))
        return [float(gain) for gain in expected_gain(means, deviations, own, front, highest)]

    def _share(self, candidate: Candidate) -> float:
        if candidate.key not in self._shares:
            self._shares[candidate.key] = self.cost(candidate.strategy)
        return self._shares[candidate.key]

    def _features(self, params: Params) -> list[float]:
        """Numbers whose distances say how alike two configurations are; axes as `_axes` has them."""
        row = []
        for name in self.space.names:
            value = params[name]
            if name[0] == "K":
                row.append(int(value) / self.space.n_layers)
            elif name[0] == "R":
                # From 90 % to 95 % dropped is as far as from nothing to half.
                row.append(-math.log(1 - float(value) + 0.02) / 4)
            else:
                row += [float(value == choice) for choice in getattr(self.space.axes, name)]
        return row

    def _axes(self) -> list[int]:
        """The axis that each of the features belongs to."""
        axes: list[int] = []
        for number, name in enumerate(self.space.names):
            choices: list[Any] = getattr(self.space.axes, name) if name[0] == "C" else [name]
            axes += [number] * len(choices)
        return axes
