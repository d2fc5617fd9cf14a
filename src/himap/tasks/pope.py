"""POPE: is this object in the image? Three splits of negatives over the same COCO images.

Source: Li et al., "Evaluating Object Hallucination in Large Vision-Language Models"; prompt and layout as
LLaVA-1.5 has them (llava_pope_test.jsonl, coco/coco_pope_*.json, val2014/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import ClassVar

from himap.errors import UserError
from himap.metrics.yesno import PARSERS, PopeScores, parse, pope_scores
from himap.tasks.base import Sample, Score
from himap.tasks.benchmark import QWEN, SHORT, Benchmark
from himap.tasks.intervals import category_interval
from himap.tasks.records import Record, read_lines, yes_or_no

CATEGORIES = ("adversarial", "popular", "random")


class Pope(Benchmark):
    SPLITS = ("test", *CATEGORIES)
    HUB_SPLITS: ClassVar = dict.fromkeys(CATEGORIES, "test")
    COLUMNS = ("question_id", "question", "answer", "category")
    PICTURE = "image_source"
    OPTIONS: ClassVar = {"parser": PARSERS, "average": ("macro", "micro")}

    def sample(self, record: Record, row: int) -> Sample | None:
        category = record["category"].strip().lower()
        if self.split not in ("test", category):
            return None
        return Sample(
            id=f"{category}-{record['question_id']}",
            question=record["question"].strip(),
            answer=yes_or_no(record["answer"]),
            category=category,
            question_id=record["question_id"],
        )

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        images = self.images_in(root / "val2014")
        asked = root / "llava_pope_test.jsonl"
        lines = read_lines(asked) if asked.exists() else []
        for category in CATEGORIES if self.split == "test" else (self.split,):
            labels = read_lines(root / "coco" / f"coco_pope_{category}.json")
            # LLaVA's question ids; its file and the labels go together by their order within a category.
            ids = [line["question_id"] for line in lines if line["category"] == category]
            if ids and len(ids) != len(labels):
                raise UserError(
                    f"task.data.path={root}: {len(labels)} labels but {len(ids)} questions of LLaVA for "
                    f"{category} (use POPE's files of commit e3e3926)."
                )
            for number, label in enumerate(labels):
                sample = Sample(
                    id=f"{category}-{label['question_id']}",
                    question=label["text"].strip(),
                    answer=yes_or_no(label["label"]),
                    category=category,
                    question_id=ids[number] if ids else label["question_id"],
                )
                yield sample, images / label["image"]

    def text(self, sample: Sample, family: str) -> str:
        return f"{sample.question} Answer:" if family == QWEN else sample.question + SHORT

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        parser = self.options["parser"]
        categories = [sample.category for sample in samples]
        answers = [sample.answer for sample in samples]
        scores = pope_scores(predictions, answers, categories, parser)
        right = [float(parse(p, parser) == a) for p, a in zip(predictions, answers, strict=True)]
        macro = self.options["average"] == "macro"
        notes = list(self.notes)
        missing = sorted(set(CATEGORIES) - set(categories)) if self.split == "test" else []
        if missing:
            notes.append(f"POPE: no answer of {', '.join(missing)}; means are over the other splits alone")
        low, high = category_interval(right, categories, mean=True) if macro else (0.0, 0.0)
        return Score(
            "macro_accuracy" if macro else "micro_accuracy",
            _figures(scores),
            tuple(right),
            notes=tuple(notes),
            interval=(100 * low, 100 * high) if macro else None,
        )


def _figures(scores: PopeScores) -> dict[str, float]:
    """Percent of every figure: macro, micro, then each split."""
    named = {"macro": scores.macro, "micro": scores.micro, **scores.splits}
    shares = [item.name for item in fields(scores.macro) if not item.name.startswith("n")]
    figures = {f"{name}_{share}": 100 * getattr(f, share) for name, f in named.items() for share in shares}
    return figures | {"unparsed": float(scores.micro.n_unparsed)}
