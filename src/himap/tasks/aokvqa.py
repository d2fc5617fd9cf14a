"""A-OKVQA, multiple choice.

Source: Schwenk et al., "A-OKVQA"; template and substring parser as FastV's inference_aokvqa.py, whose figures
the HiMAP paper's agree with; the other template is LLaVA's for multiple choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from himap.metrics.choice import choice_letters, is_correct
from himap.tasks.base import Generation, Sample, Score
from himap.tasks.benchmark import Benchmark
from himap.tasks.records import Record, read_json, right_letter
from himap.tasks.scores import accuracy


class AOkVqa(Benchmark):
    SPLITS = ("train", "validation")
    COLUMNS = ("question_id", "question", "choices", "correct_choice_idx")
    PICTURE = "image_id"
    OPTIONS: ClassVar = {"template": ("fastv", "llava"), "parser": ("letter", "fastv", "llava", "strict")}
    GENERATION = Generation(max_new_tokens=1)
    QWEN_GENERATION = None
    FORM: ClassVar = {}

    def sample(self, record: Record, row: int) -> Sample:
        choices = tuple(record["choices"])
        return Sample(
            id=record["question_id"],
            question=record["question"],
            choices=choices,
            answer=right_letter(int(record["correct_choice_idx"]), len(choices)),
        )

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        short = "val" if self.split == "validation" else self.split
        images = self.images_in(root / "coco" / f"{short}2017")
        for record in read_json(root / f"aokvqa_v1p0_{short}.json"):
            yield self.sample(record, 0), images / f"{record['image_id']:012}.jpg"

    def text(self, sample: Sample, family: str) -> str:
        pairs = zip(choice_letters(len(sample.choices)), sample.choices, strict=True)
        if self.options["template"] == "llava":
            options = "\n".join(f"{letter}. {choice}" for letter, choice in pairs)
            request = "Answer with the option's letter from the given choices directly."
            return f"{sample.question}\n{options}\n{request}"
        options = " ".join(f"({letter}) {choice}" for letter, choice in pairs)
        # The leading line break is FastV's own.
        return (
            "\nAnalyse the image and choose the best answer for the following question:\n"
            f"{sample.question}\nOptions: {options}\nJust output the letter of the correct answer."
        )

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        right = [
            is_correct(p, s.answer, len(s.choices), self.options["parser"])
            for p, s in zip(predictions, samples, strict=True)
        ]
        return accuracy(samples, right, self.notes)
