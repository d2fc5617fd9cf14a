"""Strategies by their common beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from himap.strategy import Stage, Strategy

Ranking = tuple[int, str, bool, bool, int]
"""What decides a stage's scores: layer, criterion, `normalise`, `exclude_self`, seed."""


@dataclass(eq=False)
class Node:
    """The tokens after some stages.

    Attributes:
        strategies: numbers of those that drop nothing more.
        children: what goes on from here, by what is dropped next: the ranking and the numbers kept.
    """

    strategies: list[int] = field(default_factory=list)
    children: dict[tuple[Ranking, tuple[int, ...]], tuple[Stage, Node]] = field(default_factory=dict)

    def rankings(self, layer: int) -> dict[Ranking, list[tuple[Stage, Node]]]:
        """The children that part behind that many layers, those with the same scores together."""
        found: dict[Ranking, list[tuple[Stage, Node]]] = {}
        for (ranking, _), child in self.children.items():
            if ranking[0] == layer:
                found.setdefault(ranking, []).append(child)
        return found


def ranking(stage: Stage) -> Ranking:
    """Equal for stages that score the same tokens alike."""
    seed = stage.seed if stage.criterion == "random" else 0
    return stage.layer, stage.criterion, stage.normalise, stage.exclude_self, seed


def trie(strategies: Sequence[Strategy], n_image: Sequence[int]) -> Node:
    """Strategies by their common beginnings; a stage that drops nothing counts as absent.

    Args:
        strategies: any.
        n_image: numbers of image tokens of the samples to come, each once. What strategies share may
            depend on them: 0.50 and 0.51 keep the same number of 16 tokens, not of 576.
    """
    root = Node()
    for number, strategy in enumerate(strategies):
        node, present = root, tuple(n_image)
        for stage in strategy.stages:
            kept = tuple(stage.n_kept(n) for n in present)
            if kept != present:
                _, node = node.children.setdefault((ranking(stage), kept), (stage, Node()))
                present = kept
        node.strategies.append(number)
    return root
