"""A batch of samples on its way to a model, and the rows that its answers become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from himap.answers import Row
from himap.reuse import Inputs, Reuse

if TYPE_CHECKING:
    from PIL.Image import Image

    from himap.branching import Branches
    from himap.layout import Layout
    from himap.models.base import Model
    from himap.strategy import Strategy
    from himap.tasks.base import Prompt, Sample, Task


def encoded(model: Model, task: Task, batch: Sequence[Sample], reuse: Reuse) -> Inputs:
    """The prompts of a batch and what the model makes of them, computed once where `reuse` has room."""

    def encode() -> Inputs:
        prompts = [task.prompt(sample, model.family) for sample in _decoded_once(batch)]
        return prompts, model.encode(prompts)

    return reuse.inputs((task.name, task.split, *(sample.id for sample in batch)), encode)


def _decoded_once(batch: Sequence[Sample]) -> list[Sample]:
    """The samples, with images that are decoded once for all of a picture and then are the same objects."""
    images: dict[tuple[str, str], tuple[Callable[[], Image], ...]] = {}
    for sample in batch:
        images.setdefault(sample.about, tuple(cache(load) for load in sample.images))
    return [replace(sample, images=images[sample.about]) for sample in batch]


def can_fork(model: Model, task: Task) -> bool:
    """Whether the task's answers can be decoded behind a prefill that several strategies shared."""
    from himap.models.greedy import is_plain

    return is_plain(model.hf, task.generation_for(model.family))


def open_branches(model: Model, strategies: Sequence[Strategy]) -> Branches:
    """A walk through the strategies, for `answer_each`; to be entered."""
    from himap.branching import Branches

    return Branches(model.hf, strategies, image_token_ids=model.image_token_ids)


def answer_each(
    model: Model, task: Task, batch: Sequence[Sample], branches: Branches, reuse: Reuse
) -> list[list[Row]]:
    """Ask a batch of samples in one pass: for each strategy of `branches` a row of each sample."""
    import torch

    prompts, inputs = encoded(model, task, batch, reuse)
    generation = task.generation_for(model.family)
    ranked = bool(prompts[0].options)
    texts: dict[int, list[str]] = {}
    with torch.inference_mode():
        # Ranking reads all options behind the prompt, however many tokens they have.
        for leaf in branches.run(inputs, 2 if ranked else generation.max_new_tokens):
            prefilled = (leaf.logits, leaf.cache)
            if ranked:
                found = [text.strip() for text in model.rank(inputs, prompts, prefilled)]
            else:
                found = model.go_on(inputs, prefilled, generation, prompts[0].form)
            texts |= dict.fromkeys(leaf.strategies, found)
    layout = layout_of(model, inputs)
    return [answered(model, task, batch, prompts, texts[number], layout) for number in sorted(texts)]


def layout_of(model: Model, inputs: dict[str, Any]) -> Layout:
    """Where the tokens of an encoded batch sit."""
    from himap.layout import Layout

    return Layout.from_ids(inputs["input_ids"], model.image_token_ids, inputs.get("attention_mask"))


def answered(
    model: Model,
    task: Task,
    batch: Sequence[Sample],
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    layout: Layout,
) -> list[Row]:
    """The rows of samples that the model answered with `texts`."""
    return [
        {
            **asked(sample, model.name),
            "prompt": prompt.text,
            "prediction": task.parse(text, sample),
            "text": text,
            "tokens": list(counts),
            "score": None,
            "error": None,
        }
        for sample, prompt, text, counts in zip(batch, prompts, texts, layout.counts, strict=True)
    ]


def failed(sample: Sample, model: str, error: str) -> Row:
    """The row of a sample without an answer, and why."""
    return {
        **asked(sample, model),
        "prompt": None,
        "prediction": None,
        "text": None,
        "tokens": None,
        "score": None,
        "error": error,
    }


def asked(sample: Sample, model: str) -> Row:
    """What is known before the model answers; with the keys that LLaVA's and the benchmarks' scripts read."""
    return {
        "id": sample.id,
        "question_id": sample.own_id,
        "answer_id": sample.id,
        "model_id": model,
        "metadata": {},
        "category": sample.category,
        "group": sample.group,
        "question": sample.question,
        "reference": sample.answer or list(sample.references),
    }
