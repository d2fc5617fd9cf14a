"""What a task is: samples, a prompt for each, a parser for the answer, and a score. No torch in here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Sample:
    """One question about one or more images; every benchmark is brought into this form.

    Attributes:
        id: unique within its task and split.
        question: the question as the benchmark has it, without any prompt around it.
        images: functions that decode an image when it is needed.
        choices: options of a multiple-choice question, in order.
        hint: context that some benchmarks give with the question.
        ocr_tokens: words read in the image, where the benchmark provides them.
        references: the accepted answers or captions.
        answer: the one right answer, where there is one.
        category: what the benchmark reports separately.
        group: samples of one group stay together when a limit is applied (MME's pairs).
        picture: the same for samples with the same images, by the benchmark's own name for them; they are
            asked together, so that what they share is computed once. Empty where nothing tells.
        question_id: the benchmark's own id, in its own type, for its scripts; `id` where it has none.
        error: what is wrong with its record; its images raise it, and no answer to it can be scored.
    """

    id: str
    question: str
    images: tuple[Callable[[], Image], ...] = ()
    choices: tuple[str, ...] = ()
    hint: str = ""
    ocr_tokens: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    answer: str = ""
    category: str = ""
    group: str = ""
    picture: str = ""
    question_id: str | int | None = None
    error: str = ""

    @property
    def own_id(self) -> str | int:
        """The benchmark's id; that of LLaVA's first POPE question is 0."""
        return self.id if self.question_id is None else self.question_id

    @property
    def about(self) -> tuple[str, str]:
        """Equal for samples with the same images; a sample that does not name its picture has it alone."""
        return self.picture, "" if self.picture else self.id


@dataclass(frozen=True)
class Generation:
    """How an answer is decoded; greedy unless said otherwise."""

    max_new_tokens: int = 16
    min_new_tokens: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: the user's text and the images before it.

    Attributes:
        text: the user's turn without image placeholders.
        images: decoded RGB images.
        form: `chat` wraps the text in the model's conversation, `raw` leaves it as a bare completion.
        options: answers to rank by likelihood instead of generating one; empty for generation.
    """

    text: str
    images: tuple[Image, ...] = ()
    form: str = "chat"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """The outcome of a task on a set of samples.

    Attributes:
        primary: key of the headline number in `metrics`.
        metrics: name -> value, in the unit that the benchmark prints (mostly percent).
        per_sample: one number a sample, None where a judge gave none; the mean of the numbers times `scale`
            is `metrics[primary]` unless `interval` is set.
        scale: 100 for a percentage.
        interval: 95 % interval of the headline number where it is no plain mean over the samples.
        notes: facts a reader of the numbers needs (tokenizer used, not comparable under a limit, ...).
    """

    primary: str
    metrics: dict[str, float]
    per_sample: tuple[float | None, ...]
    scale: float = 100.0
    notes: tuple[str, ...] = field(default=())
    interval: tuple[float, float] | None = None


class Task(ABC):
    """A benchmark with its protocol: samples, prompt, parser, score.

    Attributes:
        name: the configuration's name.
        split: which part of the data.
        generation: decoding settings of the protocol.
        is_scored: whether the ground truth is here; else a server scores a file of `files`.
    """

    name: str
    split: str
    generation: Generation
    is_scored: bool = True

    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """All samples of the split in a fixed order, after `limit`; images stay undecoded."""

    def check(self) -> None:
        """Raise what can be known to be wrong before a model is loaded."""
        self.samples()

    def prompt(self, sample: Sample, family: str) -> Prompt:
        """Turn a sample into a prompt for a model family (`llava`, `qwen_vl_chat`, `shapes`, ...)."""
        return Prompt(text=self.text(sample, family), images=tuple(load() for load in sample.images))

    def generation_for(self, family: str) -> Generation:
        """Decoding settings for a model family; the same for all unless official protocols differ."""
        return self.generation

    @abstractmethod
    def text(self, sample: Sample, family: str) -> str:
        """The user's turn for a sample."""

    def parse(self, output: str, sample: Sample) -> str:
        """Turn the model's text into the answer that is scored."""
        return output.strip()

    @abstractmethod
    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        """Score parsed predictions, one for each sample."""

    def ids(self, sample: Sample) -> tuple[str | int, ...]:
        """The ids under which the benchmark's own and LLaVA's scripts keep the answer to a sample."""
        return (sample.own_id,)

    def files(self, samples: Sequence[Sample], predictions: Sequence[str]) -> dict[str, str]:
        """What to write beside the answers (a test server's submission, say): file name -> content."""
        return {}
