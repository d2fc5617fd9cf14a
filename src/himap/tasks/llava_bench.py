"""LLaVA-Bench (in the wild): open questions, rated by a language model beside GPT-4's answers from a caption.

Source: Liu et al., "Visual Instruction Tuning"; request and score as eval_gpt_review_bench.py and
summarize_gpt_review.py. A review that cannot be read is left out and counted; the released script averages it
in as -1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from himap.errors import UserError
from himap.metrics.statistics import bootstrap_statistic
from himap.tasks.base import Sample, Score
from himap.tasks.judged import Judged, means_of_runs
from himap.tasks.records import Record, read_lines

if TYPE_CHECKING:
    from himap.judge.client import Request

_SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
_TEMPERATURE = 0.2


class LlavaBench(Judged):
    """`hint` is the image's caption, `answer` GPT-4's answer."""

    SPLITS = ("train",)  # the hub's only split
    COLUMNS = ("question_id", "question", "caption", "gpt_answer", "category")

    def sample(self, record: Record, row: int) -> Sample:
        return Sample(
            id=str(record["question_id"]),
            question=record["question"],
            hint=_caption(record["caption"]),
            answer=record["gpt_answer"],
            category=record["category"],
            question_id=record["question_id"],
        )

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        images = self.images_in(root / "images")
        captions = {line["image"]: line["caption"] for line in read_lines(root / "context.jsonl")}
        questions, answers = read_lines(root / "questions.jsonl"), read_lines(root / "answers_gpt4.jsonl")
        by_id = {line["question_id"]: line["text"] for line in answers}
        for line in questions:
            if line["question_id"] not in by_id:
                raise UserError(
                    f"task.data.path={root}: GPT-4's answer to question {line['question_id']} is missing."
                )
            record = {
                **line,
                "question": line["text"],
                "caption": captions[line["image"]],
                "gpt_answer": by_id[line["question_id"]],
            }
            yield self.sample(record, 0), images / line["image"]

    def check(self) -> None:
        super().check()
        self._rules(self.samples())

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        rules = self._rules(samples)
        runs = self.judging.runs
        questions = [
            self._attempts(*rules[sample.category], sample, prediction, run)
            for sample, prediction in zip(samples, predictions, strict=True)
            for run in range(runs)
        ]
        fixed = "\n".join([_SYSTEM, *(text for rule in rules.values() for text in rule)])
        values, notes = self.judged(questions, parse_ratings, fixed)
        reference = means_of_runs([None if pair is None else pair[0] for pair in values], runs)
        model = means_of_runs([None if pair is None else pair[1] for pair in values], runs)
        pairs = np.array(
            [pair for pair in zip(reference, model, strict=True) if pair[0] is not None], dtype=float
        )

        def statistic(drawn: NDArray[np.intp]) -> float:
            return _relative(pairs[drawn])

        found = bootstrap_statistic(statistic, len(pairs))
        judged = [
            (s.category, pair) for s, pair in zip(samples, zip(reference, model, strict=True), strict=True)
        ]
        return Score(
            "all",
            _figures([(name, pair) for name, pair in judged if pair[0] is not None])
            | {"unjudged": float(values.count(None))},
            tuple(model),
            scale=1.0,
            notes=tuple(notes),
            interval=(found.low, found.high),
        )

    def _rules(self, samples: Sequence[Sample]) -> dict[str, tuple[str, str]]:
        return {name: self._rule(name) for name in sorted({sample.category for sample in samples})}

    def _rule(self, category: str) -> tuple[str, str]:
        from himap.judge.prompt import own_words, rules

        if self.judging.prompt:
            return rules(self.judging.prompt, f"llava_bench_{category}")
        return own_words("llava_bench"), "Assistant"

    def _attempts(self, rule: str, role: str, sample: Sample, prediction: str, run: int) -> list[Request]:
        from himap.judge.client import Request

        user = (
            f"[Context]\n{sample.hint}\n\n[Question]\n{sample.question}\n\n"
            f"[{role} 1]\n{sample.answer}\n\n[End of {role} 1]\n\n"
            f"[{role} 2]\n{prediction}\n\n[End of {role} 2]\n\n[System]\n{rule}\n\n"
        )
        return [Request(user, _SYSTEM, _TEMPERATURE, run=run)] * self.judging.attempts


def _caption(given: str | list[str]) -> str:
    """An image's caption; several are lines, as in the released script."""
    return given if isinstance(given, str) else "\n".join(given)


def parse_ratings(reply: str) -> tuple[float, float] | None:
    """The two numbers of the first line, from 0 to 10, and nothing else in it."""
    words = reply.split("\n")[0].replace(",", " ").split()
    try:
        first, second = map(float, words)
    except ValueError:
        return None
    return (first, second) if 0 <= first <= 10 and 0 <= second <= 10 else None


def _relative(pairs: NDArray[np.float64]) -> float:
    """The model's mean rating in percent of GPT-4's, both rounded to three decimals as released."""
    reference, model = (round(float(mean), 3) for mean in pairs.mean(axis=0))
    return 100 * model / reference if reference else float("nan")


def _figures(judged: Sequence[tuple[str, tuple[float | None, float | None]]]) -> dict[str, float]:
    """`all` and each category in percent to one decimal, and the two mean ratings behind `all`."""
    members: dict[str, list[tuple[float | None, float | None]]] = {"all": [pair for _, pair in judged]}
    for name, pair in judged:
        members.setdefault(name, []).append(pair)
    figures = {name: round(_relative(np.array(pairs, dtype=float)), 1) for name, pairs in members.items()}
    reference, model = zip(*members["all"], strict=True)
    return figures | {"gpt4_rating": fmean(reference), "model_rating": fmean(model)}
