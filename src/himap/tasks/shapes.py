"""The four embedded tasks: questions about drawn scenes that training has never seen.

They mirror the families of the paper's benchmarks: short answers (VQAv2), multiple choice (ScienceQA),
existence with hard negatives (POPE) and captions (Nocaps).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from himap.errors import ConfigError
from himap.metrics.caption import cider
from himap.metrics.choice import is_correct, parse_choice
from himap.metrics.short import exact_match
from himap.metrics.yesno import pope_scores
from himap.rules import one_of
from himap.shapes import language
from himap.shapes.drawing import draw
from himap.shapes.language import Question
from himap.shapes.scene import SIDE, Scene, sample_scene
from himap.tasks.base import Generation, Sample, Score, Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from himap.config import TaskConfig

TASK_STREAM = 1
"""First word of every seed here; `himap.training.data` uses another, so no scene is shared."""

SPLITS = ("search", "heldout")
N_SAMPLES = 2000
"""Samples of each split."""

_NEGATIVES = ("random", "popular", "adversarial")


class ShapesTask(Task):
    """What the four tasks share: scenes from seeds, splits, limit.

    Args:
        config: `split` is `search` or `heldout`; `limit` at most 2,000; `options.image: noise` puts noise in
            every picture's place, to see how far a model comes without looking; `options.questions` is how
            many questions are asked about each picture (POPE asks 6, VQAv2 5.4 on average).

    Raises:
        ConfigError: an unknown split or option, or a limit beyond the split's size.
    """

    stream: int
    max_new_tokens: int

    def __init__(self, config: TaskConfig) -> None:
        one_of("task.split", config.split, SPLITS)
        if config.limit is not None and config.limit > N_SAMPLES:
            raise ConfigError(
                f"task.limit={config.limit}: each split has {N_SAMPLES} samples (use at most that)."
            )
        self.name, self.split = config.name, config.split
        self.generation = Generation(
            **({"max_new_tokens": self.max_new_tokens} | config.generation.changes())
        )
        self.limit = config.limit or N_SAMPLES
        for key in config.options:
            one_of("task.options", key, ("image", "questions"))
        self.image = config.options.get("image", "scene")
        one_of("task.options.image", self.image, ("scene", "noise"))
        self.questions = config.options.get("questions", 1)
        if not isinstance(self.questions, int) or not 1 <= self.questions <= N_SAMPLES:
            raise ConfigError(
                f"task.options.questions={self.questions}: must be a whole number from 1 to {N_SAMPLES} "
                "(questions about each picture)."
            )

    @abstractmethod
    def ask(self, scene: Scene, rng: np.random.Generator, index: int) -> Question | None:
        """The question that sample `index` has to ask, or None where this scene does not allow it."""

    def samples(self) -> Sequence[Sample]:
        return self._samples

    @cached_property
    def _samples(self) -> list[Sample]:
        firsts = range(0, self.limit, self.questions)
        return [sample for first in firsts for sample in self._about_one_picture(first)][: self.limit]

    def _about_one_picture(self, first: int) -> list[Sample]:
        # The first scene that allows the questions of these indices; nearly always the first of all.
        for attempt in range(1000):
            rng = np.random.default_rng([TASK_STREAM, self.stream, SPLITS.index(self.split), first, attempt])
            scene = sample_scene(rng)
            asked = [(i, self.ask(scene, rng, i)) for i in range(first, first + self.questions)]
            questions = [(index, question) for index, question in asked if question is not None]
            if len(questions) == self.questions:
                return [self._sample(index, question, scene, first) for index, question in questions]
        raise ConfigError(
            f"task.options.questions={self.questions}: no scene allows that many questions of {self.name} "
            "(ask fewer)."
        )

    def _sample(self, index: int, question: Question, scene: Scene, first: int) -> Sample:
        return Sample(
            id=f"{self.split}-{index:04d}",
            question=question.text,
            images=(partial(noise, scene) if self.image == "noise" else partial(picture, scene),),
            choices=question.choices,
            references=question.references,
            answer=question.answer,
            category=question.category,
            picture=f"{self.split}-{first:04d}",
        )

    def text(self, sample: Sample, family: str) -> str:
        return sample.question


class Short(ShapesTask):
    """Colour, shape, count and relation in one word; a quarter each."""

    stream, max_new_tokens = 0, 4

    def ask(self, scene: Scene, rng: np.random.Generator, index: int) -> Question | None:
        asks = (language.colour, language.shape, language.count, language.relation)
        return asks[index % len(asks)](scene, rng)

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        right = [exact_match(p, s.answer) for p, s in zip(predictions, samples, strict=True)]
        return _accuracy(samples, right)


class Choice(ShapesTask):
    """Colour and shape by the letter of one of four options."""

    stream, max_new_tokens = 1, 4

    def ask(self, scene: Scene, rng: np.random.Generator, index: int) -> Question | None:
        asks = (language.colour, language.shape)
        return language.choice(scene, rng, asks[index % len(asks)])

    def text(self, sample: Sample, family: str) -> str:
        return language.choice_text(sample.question, sample.choices)

    def parse(self, output: str, sample: Sample) -> str:
        return parse_choice(output, len(sample.choices)) or output.strip()

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        right = [is_correct(p, s.answer, len(s.choices)) for p, s in zip(predictions, samples, strict=True)]
        return _accuracy(samples, right)


class YesNo(ShapesTask):
    """Is this object in the picture? Half of the answers are yes; negatives as POPE grades them."""

    stream, max_new_tokens = 2, 4

    def ask(self, scene: Scene, rng: np.random.Generator, index: int) -> Question | None:
        category = _NEGATIVES[index // 2 % len(_NEGATIVES)]
        return language.existence(scene, rng, category, present=index % 2 == 0)

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        answers = [sample.answer for sample in samples]
        scores = pope_scores(predictions, answers, [sample.category for sample in samples], parser="exact")
        metrics = {"accuracy": 100 * scores.micro.accuracy}
        for name in ("precision", "recall", "f1", "yes_ratio"):
            metrics[name] = 100 * getattr(scores.micro, name)
        for split, figures in scores.splits.items():
            metrics |= {f"{split}_accuracy": 100 * figures.accuracy, f"{split}_f1": 100 * figures.f1}
        right = [float(p.lower() == a) for p, a in zip(predictions, answers, strict=True)]
        return Score("accuracy", metrics, tuple(right))


class Caption(ShapesTask):
    """A one-sentence description, scored by CIDEr against five references."""

    stream, max_new_tokens = 3, 40

    def ask(self, scene: Scene, rng: np.random.Generator, index: int) -> Question | None:
        return language.caption(scene, rng)

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        scores = cider(predictions, [sample.references for sample in samples])
        notes = (f"CIDEr tokenizer: {scores.tokenizer}",)
        return Score("cider", {"cider": scores.corpus}, tuple(scores.per_image), scale=1.0, notes=notes)


def picture(scene: Scene) -> Image:
    """A scene as an RGB picture of 96 x 96 pixels."""
    from PIL import Image

    return Image.fromarray(draw(scene))


def noise(scene: Scene) -> Image:
    """Pixels drawn at random, a picture of nothing; the scene only gives the seed."""
    from PIL import Image

    pixels = np.random.default_rng(scene.background).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _accuracy(samples: Sequence[Sample], right: Sequence[bool]) -> Score:
    """Percent right, in all and by category."""
    by_category: dict[str, list[bool]] = {}
    for sample, value in zip(samples, right, strict=True):
        by_category.setdefault(sample.category, []).append(value)
    metrics = {"accuracy": 100 * float(np.mean(right))}
    metrics |= {f"{name}_accuracy": 100 * float(np.mean(v)) for name, v in sorted(by_category.items())}
    return Score("accuracy", metrics, tuple(float(value) for value in right))
