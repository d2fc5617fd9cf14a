"""VQAv2: short answers with ten annotators (`val`), or a file for the test server (`testdev`).

Source: Goyal et al., "Making the V in VQA Matter"; prompt and submission as LLaVA-1.5 (model_vqa_loader.py,
convert_vqav2_for_submission.py). The paper's figures are the server's for test-dev; those of `val` are
another quantity.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from himap.errors import UserError
from himap.metrics.vqa import normalise_m4c, soft_accuracy
from himap.tasks.base import Sample, Score
from himap.tasks.benchmark import QWEN, SHORT, Benchmark
from himap.tasks.records import BROKEN, Record, read_json, read_lines, ten
from himap.tasks.scores import accuracy

if TYPE_CHECKING:
    from himap.config import TaskConfig

_ALL_IDS = "llava_vqav2_mscoco_test2015.jsonl"


class VqaV2(Benchmark):
    SPLITS = ("val", "testdev")
    HUB_SPLITS: ClassVar = {"val": "validation"}
    PICTURE = "image_id"
    OPTIONS: ClassVar = {
        "normalisation": ("official", "always"),
        "processor": ("evalai", "none"),
        "submission_ids": str,
    }

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self.is_scored = self.split == "val"
        truth = ("answers", "answer_type") if self.is_scored else ()
        self.COLUMNS = ("question_id", "question", *truth)

    def sample(self, record: Record, row: int) -> Sample:
        return Sample(
            id=str(record["question_id"]),
            question=record["question"],
            references=_answers(record["answers"]) if self.split == "val" else (),
            category=record["answer_type"] if self.split == "val" else "",
            question_id=int(record["question_id"]),
        )

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        if self.split == "testdev":
            images = self.images_in(root / "test2015")
            for line in read_lines(root / "llava_vqav2_mscoco_test-dev2015.jsonl"):
                question = line["text"].removesuffix(SHORT)
                yield self.sample({**line, "question": question}, 0), images / line["image"]
            return
        images = self.images_in(root / "val2014")
        truth = {
            item["question_id"]: item
            for item in read_json(root / "v2_mscoco_val2014_annotations.json")["annotations"]
        }
        for item in read_json(root / "v2_OpenEnded_mscoco_val2014_questions.json")["questions"]:
            path = images / f"COCO_val2014_{item['image_id']:012}.jpg"
            yield self.sample({**truth[item["question_id"]], **item}, 0), path

    def check(self) -> None:
        super().check()
        if self._server_ids:
            wanted = set(self._server_ids)
            if strange := [s.id for s in self.samples() if s.question_id not in wanted]:
                raise UserError(
                    f"task.options.submission_ids: {len(strange)} samples are not in it, {strange[0]} first "
                    "(give the questions of test2015)."
                )

    def text(self, sample: Sample, family: str) -> str:
        return f"{sample.question} Answer:" if family == QWEN else sample.question + SHORT

    def parse(self, output: str, sample: Sample) -> str:
        # Where all annotators agree the official script compares raw strings; LLaVA processes first.
        return normalise_m4c(output) if self.options["processor"] == "evalai" else output.strip()

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        if self.split == "testdev":
            answered = tuple(float(bool(prediction)) for prediction in predictions)
            share = 100 * sum(answered) / len(answered)
            notes = ["no ground truth here: the accuracy comes from the server (upload vqav2_testdev.json)"]
            if not self._server_ids:
                notes.append(
                    "vqav2_testdev.json has the asked questions alone; the server wants all of test2015 "
                    "(task.options.submission_ids)"
                )
            else:
                n = len(self._server_ids)
                notes.append(f"vqav2_testdev.json: {len(answered)} of {n} questions, the others empty")
            return Score("answered", {"answered": share}, answered, notes=(*notes, *self.notes))
        soft = [
            soft_accuracy(prediction, sample.references, self.options["normalisation"])
            for prediction, sample in zip(predictions, samples, strict=True)
        ]
        return accuracy(samples, soft, self.notes)

    def files(self, samples: Sequence[Sample], predictions: Sequence[str]) -> dict[str, str]:
        if self.split != "testdev":
            return {}
        given = {sample.question_id: p for sample, p in zip(samples, predictions, strict=True)}
        rows = [
            {"question_id": id, "answer": normalise_m4c(given.get(id, ""))}
            for id in self._server_ids or given
        ]
        return {"vqav2_testdev.json": json.dumps(rows)}

    @cached_property
    def _server_ids(self) -> list[int]:
        """Every question of test2015, where the released file is there: the server wants them all."""
        chosen = self.options["submission_ids"]
        path = Path(chosen or Path(self.data.path) / _ALL_IDS).expanduser()
        if self.split != "testdev" or not (chosen or path.is_file()):
            return []
        try:
            return [int(line["question_id"]) for line in read_lines(path)]
        except (OSError, UserError, *BROKEN) as error:
            raise UserError(
                f"task.options.submission_ids={path}: must have a question_id a line ({error})."
            ) from error


def _answers(given: list[Record] | dict[str, list[str]]) -> tuple[str, ...]:
    """The annotators' answers from either form in which data sets store a list of records."""
    return ten(given["answer"] if isinstance(given, dict) else [one["answer"] for one in given])
