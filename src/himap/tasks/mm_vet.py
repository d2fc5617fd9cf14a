"""MM-Vet: open questions that need several capabilities at once, graded from 0 to 1 by a language model.

Source: Yu et al., "MM-Vet: Evaluating Large Multimodal Models for Integrated Capabilities"; the request's
form, temperatures and attempts as the released evaluator's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from himap.tasks.base import Sample, Score
from himap.tasks.judged import Judged, means_of_runs
from himap.tasks.records import Record, read_json

if TYPE_CHECKING:
    from himap.judge.client import Request

_AGAIN = "\nPredict the correctness of the answer (digit): "


class MmVet(Judged):
    SPLITS = ("test",)
    COLUMNS = ("question_id", "question", "answer", "capability")

    def sample(self, record: Record, row: int) -> Sample:
        capability = record["capability"]
        names = capability.split(",") if isinstance(capability, str) else capability
        return Sample(
            id=str(record["question_id"]),
            question=record["question"],
            answer=record["answer"],
            category=",".join(sorted(name.strip() for name in names)),
            question_id=record["question_id"],
        )

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        images = self.images_in(root / "images")
        for name, item in read_json(root / "mm-vet.json").items():
            yield self.sample({**item, "question_id": name}, 0), images / item["imagename"]

    def check(self) -> None:
        super().check()
        self._prompt()

    def ids(self, sample: Sample) -> tuple[str | int, ...]:
        # LLaVA's question file numbers what the release calls v1_0, v1_1, ...
        return (sample.own_id, str(sample.own_id).removeprefix("v1_"))

    def files(self, samples: Sequence[Sample], predictions: Sequence[str]) -> dict[str, str]:
        """The answers as the released evaluator and its demo read them."""
        given = {str(sample.own_id): text for sample, text in zip(samples, predictions, strict=True)}
        return {"mm_vet_answers.json": json.dumps(given, ensure_ascii=False, indent=2)}

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        prompt = self._prompt()
        questions = [
            self._attempts(prompt, sample, prediction, run)
            for sample, prediction in zip(samples, predictions, strict=True)
            for run in range(self.judging.runs)
        ]
        values, notes = self.judged(questions, parse_grade, prompt)
        grades = means_of_runs(values, self.judging.runs)
        figures = _figures(samples, grades) | {"unjudged": float(values.count(None))}
        return Score("total", figures, tuple(grades), notes=tuple(notes))

    def _prompt(self) -> str:
        from himap.judge.prompt import few_shot, own_words

        return few_shot(self.judging.prompt) if self.judging.prompt else own_words("mm_vet")

    def _attempts(self, prompt: str, sample: Sample, prediction: str, run: int) -> list[Request]:
        from himap.judge.client import Request

        truth = sample.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        row = " | ".join([sample.question, truth, prediction, ""])
        first = f"{prompt}\n{row}"
        # As released: a request that brought no grade is sent again with a hint, as cold as the first, then
        # each time 0.5 hotter.
        return [
            Request(
                first + _AGAIN * (n > 0), temperature=min(2.0, 0.5 * max(0, n - 1)), max_tokens=3, run=run
            )
            for n in range(self.judging.attempts)
        ]


def parse_grade(reply: str) -> float | None:
    """The number that a reply begins with, where it lies in [0, 1]."""
    try:
        grade = float(reply.split(" ")[0].strip())
    except ValueError:
        return None
    return grade if 0 <= grade <= 1 else None


def _figures(samples: Sequence[Sample], grades: Sequence[float | None]) -> dict[str, float]:
    """Percent: in all, for each capability, and for each set of capabilities that a question needs."""
    members: dict[str, list[float]] = {}
    for sample, grade in zip(samples, grades, strict=True):
        if grade is not None:
            together = sample.category.split(",")
            sets = [f"set_{'+'.join(together)}"]
            for name in ["total", *together, *sets]:
                members.setdefault(name, []).append(grade)
    return {name: 100 * fmean(values) for name, values in members.items()}
