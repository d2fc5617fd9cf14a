"""A batch of samples on its way to a model, and the rows that its answers become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from himap.answers import Row
from himap.reuse import Inputs, Reuse

if TYPE_CHECKING:
    from himap.layout import Layout
    from himap.models.base import Model
    from himap.tasks.base import Prompt, Sample, Task


def encoded(model: Model, task: Task, batch: Sequence[Sample], reuse: Reuse) -> Inputs:
    """The prompts of a batch and what the model makes of them, computed once where `reuse` has room."""

    def encode() -> Inputs:
        prompts = [task.prompt(sample, model.family) for sample in batch]
        return prompts, model.encode(prompts)

    return reuse.inputs((task.name, task.split, *(sample.id for sample in batch)), encode)


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
