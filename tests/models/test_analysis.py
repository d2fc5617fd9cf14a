"""Every family of conf/model, made tiny, can be analysed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from shrunk import picture
from test_laws import NAMES, model

from himap.analysis.ask import disruption_of, kept_of, saliency_of
from himap.analysis.config import AnalyzeConfig
from himap.analysis.grids import Grid
from himap.config.compose import compose
from himap.strategy import Stage, Strategy
from himap.tasks.base import Generation, Sample, Score, Task


class Questions(Task):
    """Two questions about pictures of unequal shape."""

    name, split, generation = "questions", "search", Generation()

    def samples(self) -> Sequence[Sample]:
        return [
            Sample("a", "What is it?", (lambda: picture(0),), answer="no"),
            Sample("b", "Are they alike?", (lambda: picture(1), lambda: picture(2, (24, 48))), answer="yes"),
        ]

    def text(self, sample: Sample, family: str) -> str:
        return sample.question

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        raise NotImplementedError


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_analysed(name: str) -> None:
    made, task = model(name), Questions()
    samples = task.samples()
    saliency = compose("analyze", AnalyzeConfig).settings
    for row in saliency_of(made, task, saliency, samples):  # type: ignore[arg-type]
        flow = torch.tensor(row["flow"])
        assert flow.shape == (6, 3, 3)
        assert torch.isfinite(flow).all()
        assert (flow[:-1, 1:, 1] > 0).all(), "image rows and instruction rows look at the image"
    words = ["analysis=disruption", "analysis.scope=window", "analysis.width=6", "analysis.starts=[1]"]
    blocked = compose("analyze", AnalyzeConfig, words).settings
    found = disruption_of(made, task, blocked, samples)  # type: ignore[arg-type]
    assert all(len(row["score"]) == 3 for row in found)
    assert min(row["score"][0] for row in found) < 1, "an image that cannot be seen must be missed"
    strategy = Strategy("two", (Stage(2, 0.5, "img2txt"), Stage(4, 0.5, "img2img")))
    for row in kept_of(made, task, [strategy], samples):
        n_image = row["tokens"][1]
        assert sum(Grid(*grid).n_cells for grid in row["grids"]) == n_image
        first, second = row["kept"][0]
        assert [len(first), len(second)] == [n for _, n in strategy.kept(n_image)]
        assert set(second) < set(first) < set(range(n_image))
