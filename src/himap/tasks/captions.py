"""Captions scored by CIDEr: Nocaps (ten references) and Flickr30k (five).

Source: Agrawal et al., "nocaps"; Young et al., "From image descriptions to visual denotations"; Karpathy's
split (dataset_flickr30k.json). The prompt is InternVL's and lmms-eval's; the HiMAP paper prints none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from himap.metrics.caption import check, cider
from himap.metrics.tokenizer import TOKENIZERS
from himap.tasks.base import Generation, Sample, Score
from himap.tasks.benchmark import QWEN, Benchmark
from himap.tasks.records import Record, read_json


class Captions(Benchmark):
    """What both share: a prompt of the user's choice, and CIDEr over the split."""

    OPTIONS: ClassVar = {"prompt": str, "qwen_prompt": str, "tokenizer": TOKENIZERS}
    GENERATION = Generation(max_new_tokens=64)
    QWEN_GENERATION = Generation(max_new_tokens=30, min_new_tokens=8, length_penalty=0.0)

    def check(self) -> None:
        super().check()
        check(self.options["tokenizer"])

    def text(self, sample: Sample, family: str) -> str:
        return str(self.options["qwen_prompt" if family == QWEN else "prompt"])

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        scores = cider(predictions, [sample.references for sample in samples], self.options["tokenizer"])
        notes = [f"CIDEr tokenizer: {scores.tokenizer}", *self.notes]
        n, total = len(samples), len(self.samples())
        if self.limit is not None or n < total:
            part = f"under task.limit={self.limit}" if self.limit is not None else f"of {n} of {total} images"
            notes.append(f"CIDEr {part} is not comparable: its weights come from the images")
        return Score(
            "cider", {"cider": scores.corpus}, tuple(scores.per_image), scale=1.0, notes=tuple(notes)
        )


class NoCaps(Captions):
    SPLITS = ("validation",)
    COLUMNS = ("image_id", "annotations_captions")

    def sample(self, record: Record, row: int) -> Sample:
        return Sample(
            id=str(record["image_id"]), question="", references=_captions(record["annotations_captions"])
        )

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        images = self.images_in(root / "images")
        released = read_json(root / "nocaps_val_4500_captions.json")
        captions: dict[int, list[str]] = {}
        for item in released["annotations"]:
            captions.setdefault(item["image_id"], []).append(item["caption"])
        for image in released["images"]:
            record = {"image_id": image["id"], "annotations_captions": captions[image["id"]]}
            yield self.sample(record, 0), images / image["file_name"]


class Flickr30k(Captions):
    """The hub's `test` is all 31,783 images; Karpathy's splits come with the original files."""

    SPLITS = ("test", "train", "val", "all")
    COLUMNS = ("img_id", "caption")

    def sample(self, record: Record, row: int) -> Sample:
        return Sample(id=str(record["img_id"]), question="", references=_captions(record["caption"]))

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        images = self.images_in(root / "flickr30k-images")
        for image in read_json(root / "dataset_flickr30k.json")["images"]:
            if self.split in ("all", image["split"]):
                record = {"img_id": image["imgid"], "caption": [one["raw"] for one in image["sentences"]]}
                yield self.sample(record, 0), images / image["filename"]


def _captions(given: list[str]) -> tuple[str, ...]:
    captions = tuple(str(one) for one in given)
    if not captions:
        raise ValueError("it has no reference caption")
    return captions
