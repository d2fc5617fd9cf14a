"""ScienceQA, the questions with an image: multiple choice by letter.

Source: Lu et al., "Learn to Explain"; prompt and parser as LLaVA-1.5's eval_science_qa.py, and likelihood
ranking as Qwen-VL's evaluate_multiple_choice.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from himap.metrics.choice import choice_letters, is_correct
from himap.tasks.base import Generation, Prompt, Sample, Score
from himap.tasks.benchmark import QWEN, Benchmark
from himap.tasks.records import Record, read_json, right_letter
from himap.tasks.scores import accuracy

_REQUEST = "Answer with the option's letter from the given choices directly."
_OPTION = re.compile(r"([A-Z])\. (.*)")
_ANSWER = re.compile(r"(?:The answer is )?([A-Z])\.?")


class ScienceQA(Benchmark):
    SPLITS = ("train", "validation", "test")
    COLUMNS = ("question", "choices", "answer", "hint", "subject")
    OPTIONS: ClassVar = {
        "parser": ("llava", "strict", "letter", "lmms_eval"),
        "answer": ("auto", "generate", "rank"),
    }
    GENERATION = Generation(max_new_tokens=1024)

    def sample(self, record: Record, row: int) -> Sample:
        return _sample(f"{self.split}-{row}", record)

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        folder = "val" if self.split == "validation" else self.split
        images = self.images_in(root / "images" / folder)
        if (root / "problems.json").exists():
            problems = read_json(root / "problems.json")
            for name in read_json(root / "pid_splits.json")[folder]:
                if problems[name].get("image"):
                    yield _sample(name, problems[name]), images / name / problems[name]["image"]
            return
        # LLaVA's own file: the prompt as a conversation. Without an image it is not of the benchmark.
        for item in read_json(root / f"llava_{folder}_CQM-A.json"):
            if item.get("image"):
                yield _conversation(item), images / item["image"]

    def text(self, sample: Sample, family: str) -> str:
        options = "\n".join(
            f"{letter}. {choice}"
            for letter, choice in zip(choice_letters(len(sample.choices)), sample.choices, strict=True)
        )
        if family == QWEN:
            return (
                f"Context: {sample.hint or 'N/A'}\nQuestion: {sample.question}\nOptions: {options}\nAnswer:"
            )
        context = f"Context: {sample.hint}\n" if sample.hint else ""
        return f"{context}{sample.question}\n{options}\n{_REQUEST}"

    def prompt(self, sample: Sample, family: str) -> Prompt:
        prompt = super().prompt(sample, family)
        if self.options["answer"] == "rank" or (self.options["answer"] == "auto" and family == QWEN):
            return replace(
                prompt, options=tuple(f" {letter}" for letter in choice_letters(len(sample.choices)))
            )
        return prompt

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        right = [
            is_correct(p, s.answer, len(s.choices), self.options["parser"])
            for p, s in zip(predictions, samples, strict=True)
        ]
        return accuracy(samples, right, self.notes)


def _sample(name: str, problem: Record) -> Sample:
    choices = tuple(problem["choices"])
    return Sample(
        id=name,
        question=problem["question"],
        choices=choices,
        hint=problem["hint"] or "",
        answer=right_letter(int(problem["answer"]), len(choices)),
        category=problem["subject"],
    )


def _conversation(item: Record) -> Sample:
    """A question from LLaVA's conversation: context, question, lettered options, request; then the answer."""
    asked, answered = (turn["value"] for turn in item["conversations"][:2])
    lines = asked.replace("<image>", "").strip().removesuffix(_REQUEST).strip().split("\n")
    start = len(lines)
    while start and _OPTION.fullmatch(lines[start - 1]):
        start -= 1
    hint, question = "", "\n".join(lines[:start])
    if question.startswith("Context: "):
        hint, _, question = question.removeprefix("Context: ").rpartition("\n")
    choices = tuple(line[3:] for line in lines[start:])
    found = _ANSWER.fullmatch(answered.strip())
    if found is None or found[1] not in choice_letters(len(choices)):
        raise ValueError(f"question {item['id']} has no answer among its options")
    return Sample(str(item["id"]), question, choices=choices, hint=hint, answer=found[1])
