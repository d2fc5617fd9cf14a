"""What each analysis measures on the samples of a batch: one dictionary a sample, ready for a JSON line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch

from himap.analysis.config import DisruptionConfig, SaliencyConfig
from himap.analysis.disruption import consistencies
from himap.analysis.grids import grids
from himap.analysis.kept import survivors
from himap.analysis.labels import first_token_id, reference
from himap.analysis.saliency import flows
from himap.errors import UserError
from himap.layout import Layout
from himap.models.base import Model
from himap.strategy import Strategy
from himap.support import check_layout
from himap.tasks.base import Prompt, Sample, Task

Found = list[dict[str, Any]]


class Batch:
    """Encoded prompts with their layout.

    Raises:
        UserError: a prompt has no image, or ends with one.
    """

    def __init__(self, model: Model, task: Task, samples: Sequence[Sample]) -> None:
        self.prompts: list[Prompt] = [task.prompt(sample, model.family) for sample in samples]
        self.inputs = model.encode(self.prompts)
        self.layout = Layout.from_ids(
            self.inputs["input_ids"], model.image_token_ids, self.inputs.get("attention_mask")
        )
        check_layout(self.layout)
        for sample, counts in zip(samples, self.layout.counts, strict=True):
            if counts.n_image == 0:
                raise UserError(f"sample {sample.id}: has no image (nothing visual flows in it).")

    def targets(self, model: Model, samples: Sequence[Sample], label: str) -> torch.Tensor:
        """The id of each answer's first token, [B]."""
        ids = [
            first_token_id(model, prompt, reference(sample), label)
            for prompt, sample in zip(self.prompts, samples, strict=True)
        ]
        return torch.tensor(ids, device=self.inputs["input_ids"].device)


def saliency_of(model: Model, task: Task, settings: SaliencyConfig, samples: Sequence[Sample]) -> Found:
    """Per sample: tokens by group, `flow` [L][3][3], `pairs` [3][3], whether the first token is `right`."""
    batch = Batch(model, task, samples)
    targets = batch.targets(model, samples, settings.label)
    found = flows(model.hf, batch.inputs, batch.layout, targets, squared=settings.product == "squared")
    right = found.logits.argmax(-1) == targets
    return [
        {
            "tokens": list(batch.layout.counts[i]),
            "right": bool(right[i]),
            "pairs": found.pairs[i].tolist(),
            "flow": found.flow[i].double().tolist(),
        }
        for i in range(len(samples))
    ]


def disruption_of(model: Model, task: Task, settings: DisruptionConfig, samples: Sequence[Sample]) -> Found:
    """Per sample: `label` and `score` of every disruption in order, whether the plain model is `right`."""
    batch = Batch(model, task, samples)
    disruptions = settings.disruptions(model.text_config.num_hidden_layers)
    logits, found = consistencies(
        model.hf,
        batch.inputs,
        batch.layout,
        disruptions,
        mode=settings.mode,
        seed=settings.seed,
        top=settings.top,
    )
    right = logits.argmax(-1) == batch.targets(model, samples, settings.label)
    label = torch.stack([one.label for one in found], -1)
    score = torch.stack([one.score for one in found], -1).double()
    return [
        {
            "tokens": list(batch.layout.counts[i]),
            "right": bool(right[i]),
            "label": label[i].int().tolist(),
            "score": [round(value, 6) for value in score[i].tolist()],
        }
        for i in range(len(samples))
    ]


def kept_of(model: Model, task: Task, strategies: Sequence[Strategy], samples: Sequence[Sample]) -> Found:
    """Per sample: `grids` of its image tokens, and for each strategy the ordinals `kept` after each stage."""
    batch = Batch(model, task, samples)
    places = grids(model, batch.prompts, batch.inputs)
    kept = [survivors(model.hf, batch.inputs, batch.layout, strategy) for strategy in strategies]
    return [
        {
            "tokens": list(batch.layout.counts[i]),
            "grids": [list(astuple(grid)) for grid in places[i]],
            "kept": [one[i] for one in kept],
        }
        for i in range(len(samples))
    ]
