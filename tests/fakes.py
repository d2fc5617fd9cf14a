"""A model that reads characters, and a task of twelve questions about drawn images, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny import IMAGE_ID, N_PATCHES, PAD_ID, tiny_llava

from himap.models.base import Model
from himap.tasks.base import Generation, Prompt, Sample, Score, Task

_SIDE = 16

interrupt_at: int | None = None
"""The number of the question that presses Ctrl-C."""


class Tokenizer:
    """Letters and digits as ids above the special ones."""

    pad_token_id = PAD_ID

    def batch_decode(self, ids: torch.Tensor, skip_special_tokens: bool = True) -> list[str]:
        return [" ".join(str(int(token)) for token in row) for row in ids]


class TinyModel(Model):
    """A tiny random LLaVA behind the project's interface: text is read one character a token."""

    def __init__(self) -> None:
        super().__init__(
            name="tiny",
            family="shapes",
            hf=tiny_llava().model,
            processor=SimpleNamespace(tokenizer=Tokenizer()),
            image_token_ids=(IMAGE_ID,),
            stop_token_ids=(1,),
        )

    def encode(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        rows = []
        pixels = []
        for prompt in prompts:
            row = [2, 3]
            for image in prompt.images:
                row += [IMAGE_ID] * N_PATCHES
                pixels.append(torch.from_numpy(np.array(image, dtype=np.float32)) / 255)
            rows.append(row + [4 + ord(letter) % 80 for letter in prompt.text])
        longest = max(map(len, rows))
        batch = {
            "input_ids": torch.tensor([[PAD_ID] * (longest - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
        }
        if pixels:
            batch["pixel_values"] = torch.stack(pixels).reshape(-1, _SIDE, _SIDE, 3).permute(0, 3, 1, 2)
        return batch


def image(seed: int) -> Image.Image:
    """A small picture that differs with `seed`."""
    return Image.new("RGB", (_SIDE, _SIDE), (seed * 20 % 256, seed * 50 % 256, seed * 90 % 256))


@dataclass
class Questions(Task):
    """Twelve questions, an answer right where its first token is even."""

    name: str = "questions"
    split: str = "search"
    generation: Generation = field(default_factory=lambda: Generation(max_new_tokens=3))
    n: int = 12
    load: Callable[[int], Image.Image] = image

    def samples(self) -> list[Sample]:
        return [
            Sample(
                id=f"q{number}",
                question="what is this" + "?" * (number % 4),
                images=(lambda number=number: self.load(number),),
                answer="even",
            )
            for number in range(self.n)
        ]

    def text(self, sample: Sample, family: str) -> str:
        return sample.question

    def parse(self, output: str, sample: Sample) -> str:
        return "even" if int(output.split()[0]) % 2 == 0 else "odd"

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        right = tuple(float(p == s.answer) for p, s in zip(predictions, samples, strict=True))
        return Score("accuracy", {"accuracy": 100 * sum(right) / len(right)}, right)


def strategy(**stages: Any) -> Any:
    """A strategy for the tiny model from `name=(layer, drop, criterion)`."""
    from himap.strategy import Stage, Strategy

    return Strategy("test", tuple(Stage(*values, name=name) for name, values in stages.items()))


def load(config: Any, hardware: Any) -> TinyModel:
    """The tiny model as an adapter of `himap.models`."""
    return TinyModel()


def questions(config: Any) -> Questions:
    """The twelve questions as an adapter of `himap.tasks`; `data.broken` lists samples that fail."""

    def picture(number: int) -> Image.Image:
        if number in config.data.get("broken", []):
            raise OSError(f"cannot read image {number}")
        if number == interrupt_at:
            raise KeyboardInterrupt
        return image(number)

    return Questions(split=config.split, n=config.limit or 12, load=picture)
