"""TextVQA: questions about text in the image, with the release's OCR tokens in the prompt or without.

Source: Singh et al., "Towards VQA Models That Can Read"; prompt as LLaVA-1.5's
llava_textvqa_val_v051_ocr.jsonl, score as M4C's evaluator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from himap.errors import ConfigError
from himap.metrics.vqa import soft_accuracy
from himap.tasks.base import Sample, Score
from himap.tasks.benchmark import QWEN, SHORT, Benchmark
from himap.tasks.records import Record, read_json, read_lines, ten
from himap.tasks.scores import accuracy

if TYPE_CHECKING:
    from himap.config import TaskConfig

_OCR = "Reference OCR token: "


class TextVqa(Benchmark):
    SPLITS = ("train", "validation")
    COLUMNS: tuple[str, ...] = ("question_id", "image_id", "question", "answers", "ocr_tokens")
    PICTURE = "image_id"
    OPTIONS: ClassVar = {"ocr": bool}

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        if not self.options["ocr"]:
            self.COLUMNS = tuple(column for column in self.COLUMNS if column != "ocr_tokens")

    def sample(self, record: Record, row: int) -> Sample:
        return Sample(
            id=str(record["question_id"]),
            question=record["question"],
            references=ten(record["answers"]),
            ocr_tokens=tuple(record["ocr_tokens"]) if self.options["ocr"] else (),
            # LLaVA's script joins on the image and the question's text.
            question_id=record["image_id"],
        )

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        if self.split != "validation":
            raise ConfigError(
                f"task.split={self.split}: task.data.source=original has validation alone (LLaVA released "
                "the OCR tokens of that)."
            )
        images = self.images_in(root / "train_images")
        truth: dict[tuple[str, str], list[Record]] = {}
        for item in read_json(root / "TextVQA_0.5.1_val.json")["data"]:
            truth.setdefault((item["image_id"], item["question"].lower()), []).append(item)
        for line in read_lines(root / "llava_textvqa_val_v051_ocr.jsonl"):
            question, *rest = line["text"].removesuffix(SHORT).split("\n")
            tokens = "\n".join(rest).removeprefix(_OCR)
            # A question that is there twice has two entries, in one order.
            item = truth[line["question_id"], question.lower()].pop(0)
            record = {**item, "ocr_tokens": tokens.split(", ") if tokens else []}
            yield self.sample(record, 0), images / line["image"]

    def text(self, sample: Sample, family: str) -> str:
        if family == QWEN:
            return f"{sample.question} Answer:"
        ocr = f"\n{_OCR}{', '.join(sample.ocr_tokens)}" if self.options["ocr"] else ""
        return f"{sample.question.capitalize()}{ocr}{SHORT}"

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        soft = [
            soft_accuracy(prediction, sample.references, "m4c")
            for prediction, sample in zip(predictions, samples, strict=True)
        ]
        return accuracy(samples, soft, self.notes)
