"""Tiny made-up releases of the benchmarks: the hub's columns with their types, and the original files."""

# ruff: noqa: E501

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

Record = dict[str, Any]
N_IMAGES = 4
SHORT = "\nAnswer the question using a single word or phrase."


def png(seed: int) -> bytes:
    """A picture of 16 x 16 pixels that differs with `seed`."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (seed * 40 % 256, seed * 90 % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: Sequence[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # As released: no line end after the last object.
    path.write_text("\n".join(json.dumps(row) for row in rows))


@dataclass(frozen=True)
class Release:
    """A benchmark's data: `records` with the `seed` of their image, `types` of the hub's columns."""

    split: str
    hub_split: str
    types: dict[str, str]
    records: list[Record]
    original: Callable[[Path], None]


# POPE

_POPE = [
    {
        "id": str(number), "question_id": str(1 + number % 2), "question": f"Is there a thing{number} in the image?",
        "answer": ("yes", "no")[number % 2], "image_source": f"COCO_val2014_{number // 2:012}",
        "category": category, "seed": number // 2,
    }
    for number, category in enumerate(
        ["adversarial", "adversarial", "popular", "popular", "random", "random"]
    )
]  # fmt: skip


def _pope(root: Path) -> None:
    asked = []
    for category in ("adversarial", "popular", "random"):
        records = [record for record in _POPE if record["category"] == category]
        labels = []
        for record in records:
            image = f"{record['image_source']}.png"
            picture(root / "val2014" / image, record["seed"])
            labels.append(
                {"question_id": int(record["question_id"]), "image": image, "text": record["question"],
                 "label": record["answer"]}
            )  # fmt: skip
            asked.append(
                {
                    "question_id": len(asked),
                    "image": image,
                    "text": record["question"] + SHORT,
                    "category": category,
                }
            )
        write_lines(root / "coco" / f"coco_pope_{category}.json", labels)
    write_lines(root / "llava_pope_test.jsonl", asked)


# ScienceQA

_SCIENCE = [
    {
        "question": f"Which is it, {number}?", "choices": ["cat", "dog", "a red. hen"][: 2 + number % 2],
        "answer": number % 2, "hint": "Two lines\nof context." if number % 2 else "", "task": "closed choice",
        "grade": "grade2", "subject": ("natural science", "social science")[number % 2], "topic": "biology",
        "category": "Animals", "skill": "Name animals", "lecture": "", "solution": "", "seed": number,
    }
    for number in range(N_IMAGES)
]  # fmt: skip


def _science(root: Path) -> None:
    problems = {}
    for number, record in enumerate(_SCIENCE):
        picture(root / "images" / "test" / str(number) / "image.png", record["seed"])
        problems[str(number)] = {**record, "image": "image.png", "split": "test"}
    problems["99"] = {**_SCIENCE[0], "image": None, "split": "test"}
    write_json(root / "problems.json", problems)
    write_json(root / "pid_splits.json", {"test": list(problems), "val": [], "train": []})


# A-OKVQA

_AOKVQA = [
    {
        "image_id": 100 + number, "question_id": f"q{number}", "question": "What is this?",
        "choices": ["cat", "dog", "hen", "cow"], "correct_choice_idx": number % 4,
        "direct_answers": ["cat"] * 10, "difficult_direct_answer": False, "rationales": ["so"] * 3,
        "split": "val", "seed": number,
    }
    for number in range(N_IMAGES)
]  # fmt: skip


def _aokvqa(root: Path) -> None:
    for record in _AOKVQA:
        picture(root / "coco" / "val2017" / f"{record['image_id']:012}.jpg", record["seed"])
    write_json(root / "aokvqa_v1p0_val.json", _AOKVQA)


# VQAv2

_GIVEN = [
    ["yes"] * 10,
    ["2"] * 4 + ["two"] * 3 + ["three"] * 3,
    ["dog's"] * 10,
    ["a cat"] * 5 + ["the dog"] * 5,
]
_VQA = [
    {
        "question_type": "what", "multiple_choice_answer": given[0],
        "answers": [
            {"answer": one, "answer_confidence": "yes", "answer_id": 1 + number} for number, one in enumerate(given)
        ],
        "image_id": 500 + index, "answer_type": ("yes/no", "number", "other", "other")[index],
        "question_id": 5000 + index, "question": f"What is {index}?", "seed": index,
    }
    for index, given in enumerate(_GIVEN)
]  # fmt: skip


def _vqa(root: Path) -> None:
    questions, annotations = [], []
    for record in _VQA:
        picture(root / "val2014" / f"COCO_val2014_{record['image_id']:012}.jpg", record["seed"])
        questions.append({key: record[key] for key in ("image_id", "question", "question_id")})
        annotations.append(
            {
                key: record[key]
                for key in ("question_type", "answers", "image_id", "answer_type", "question_id")
            }
        )
    write_json(root / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    write_json(root / "v2_mscoco_val2014_annotations.json", {"annotations": annotations[::-1]})
    # And LLaVA's files for the test server: two of three questions are test-dev's.
    lines = [
        {"question_id": 10 * n, "image": f"COCO_test2015_{n:012}.jpg", "text": f"What is {n}?{SHORT}",
         "category": "default"}
        for n in (1, 2, 3)
    ]  # fmt: skip
    for n in (1, 2, 3):
        picture(root / "test2015" / f"COCO_test2015_{n:012}.jpg", n)
    write_lines(root / "llava_vqav2_mscoco_test-dev2015.jsonl", lines[:2])
    write_lines(root / "llava_vqav2_mscoco_test2015.jsonl", lines)


# TextVQA

_TEXT = [
    {
        "image_id": f"im{number // 2}", "question_id": 30 + number, "question": f"what does sign {number} say?",
        "question_tokens": ["what"], "image_width": 12, "image_height": 8, "flickr_original_url": "",
        "flickr_300k_url": "", "answers": ["stop"] * 7 + ["Stop!"] * 3, "image_classes": ["sign"],
        "set_name": "val", "ocr_tokens": ["STOP", "a,b"] if number else [], "seed": number // 2,
    }
    for number in range(N_IMAGES)
]  # fmt: skip


def _text(root: Path) -> None:
    lines = []
    for record in _TEXT:
        image = f"{record['image_id']}.jpg"
        picture(root / "train_images" / image, record["seed"])
        ocr = ", ".join(record["ocr_tokens"])
        text = f"{record['question'].capitalize()}\nReference OCR token: {ocr}{SHORT}"
        lines.append({"question_id": record["image_id"], "image": image, "text": text, "category": "default"})
    write_lines(root / "llava_textvqa_val_v051_ocr.jsonl", lines)
    released = [{key: value for key, value in r.items() if key != "ocr_tokens"} for r in _TEXT]
    write_json(root / "TextVQA_0.5.1_val.json", {"data": released[::-1]})


# MME: one image a category, two in `count`, one category with the deep layout.

_DEEP = ("artwork", "celebrity", "landmark", "posters", "scene")
_MME_CATEGORIES = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip
_MME = [
    {
        "question_id": f"{category}/{image}.png",
        "question": f"Is it {answer} in {image}?{' ' * spaces}Please answer yes or no.",
        "answer": answer, "category": category, "seed": len(category) + image,
    }
    for category in _MME_CATEGORIES
    for image in range(2 if category == "count" else 1)
    for answer, spaces in (("Yes", 1), ("No", 2))
]  # fmt: skip


def _mme(root: Path) -> None:
    for record in _MME:
        category, image = record["question_id"].split("/")
        folder = root / "MME_Benchmark_release_version" / category
        deep = category in _DEEP
        picture((folder / "images" if deep else folder) / image, record["seed"])
        path = (folder / "questions_answers_YN" if deep else folder) / image.replace(".png", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"{record['question']}\t{record['answer']}\n")


# Captions

_NOCAPS = [
    {
        "image_coco_url": "", "image_date_captured": "", "image_file_name": f"{number}.png", "image_height": 8,
        "image_width": 12, "image_id": number, "image_license": 0, "image_open_images_id": str(number),
        "annotations_ids": list(range(10)),
        "annotations_captions": [f"a {animal} number {n} on the grass" for n in range(10)], "seed": number,
    }
    for number, animal in enumerate(["cat", "dog", "hen", "cow"])
]  # fmt: skip


def _nocaps(root: Path) -> None:
    annotations = []
    for record in _NOCAPS:
        picture(root / "images" / record["image_file_name"], record["seed"])
        annotations += [
            {"image_id": record["image_id"], "caption": one} for one in record["annotations_captions"]
        ]
    images = [{"id": r["image_id"], "file_name": r["image_file_name"]} for r in _NOCAPS]
    write_json(root / "nocaps_val_4500_captions.json", {"images": images, "annotations": annotations})


_FLICKR = [
    {
        "caption": [f"a {animal} number {n} on the grass" for n in range(5)], "sentids": [str(n) for n in range(5)],
        "img_id": str(number), "filename": f"{number}.png", "split": "test", "seed": number,
    }
    for number, animal in enumerate(["cat", "dog", "hen", "cow"])
]  # fmt: skip


def _flickr(root: Path) -> None:
    images = [
        {"imgid": int(r["img_id"]), "filename": r["filename"], "split": "test",
         "sentences": [{"raw": one} for one in r["caption"]]}
        for r in _FLICKR
    ]  # fmt: skip
    images.append({"imgid": 9, "filename": "9.png", "split": "train", "sentences": [{"raw": "a pig"}]})
    for record in _FLICKR:
        picture(root / "flickr30k-images" / record["filename"], record["seed"])
    write_json(root / "dataset_flickr30k.json", {"images": images})


# The judged ones

_BENCH = [
    {
        "question_id": number, "question": f"What is {number}?", "caption": f"A picture of {number}.",
        "gpt_answer": f"It is {number}.", "category": ("conv", "detail", "complex", "conv")[number],
        "image_name": f"{number // 2:03}.jpg", "seed": number // 2,
    }
    for number in range(N_IMAGES)
]  # fmt: skip


def _bench(root: Path) -> None:
    for record in _BENCH:
        picture(root / "images" / record["image_name"], record["seed"])
    write_lines(
        root / "questions.jsonl",
        [
            {
                "question_id": r["question_id"],
                "image": r["image_name"],
                "category": r["category"],
                "text": r["question"],
            }
            for r in _BENCH
        ],
    )
    write_lines(root / "context.jsonl", [{"image": r["image_name"], "caption": r["caption"]} for r in _BENCH])
    write_lines(
        root / "answers_gpt4.jsonl",
        [{"question_id": r["question_id"], "text": r["gpt_answer"], "answer_id": "x"} for r in _BENCH],
    )


_VET = [
    {
        "question_id": f"v1_{number}", "question": f"What is {number}?", "answer": ("3", "a<AND>b", "c<OR>d", "e")[number],
        "image_source": "x", "capability": ("rec", "ocr,spat", "rec,know", "math,ocr")[number], "seed": number,
    }
    for number in range(N_IMAGES)
]  # fmt: skip


def _vet(root: Path) -> None:
    items = {}
    for record in _VET:
        name = record["question_id"]
        picture(root / "images" / f"{name}.png", record["seed"])
        items[name] = {
            "imagename": f"{name}.png", "question": record["question"], "answer": record["answer"],
            "imagesource": "x", "capability": record["capability"].split(","),
        }  # fmt: skip
    write_json(root / "mm-vet.json", items)


_STRINGS = "list<string>"
RELEASES = {
    "pope": Release(
        "test", "test",
        dict.fromkeys(["id", "question_id", "question", "answer", "image_source", "category"], "string"),
        _POPE, _pope,
    ),
    "scienceqa": Release(
        "test", "test",
        {"question": "string", "choices": _STRINGS, "answer": "int8"}
        | dict.fromkeys(
            ["hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution"], "string"
        ),
        _SCIENCE, _science,
    ),
    "aokvqa": Release(
        "validation", "validation",
        {"split": "string", "image_id": "int64", "question_id": "string", "question": "string",
         "choices": _STRINGS, "correct_choice_idx": "int64", "direct_answers": _STRINGS,
         "difficult_direct_answer": "bool", "rationales": _STRINGS},
        _AOKVQA, _aokvqa,
    ),
    "vqav2": Release(
        "val", "validation",
        {"question_type": "string", "multiple_choice_answer": "string", "answers": "answers", "image_id": "int64",
         "answer_type": "string", "question_id": "int64", "question": "string"},
        _VQA, _vqa,
    ),
    "textvqa": Release(
        "validation", "validation",
        {"image_id": "string", "question_id": "int32", "question": "string", "question_tokens": _STRINGS,
         "image_width": "int32", "image_height": "int32", "flickr_original_url": "string",
         "flickr_300k_url": "string", "answers": _STRINGS, "image_classes": _STRINGS, "set_name": "string",
         "ocr_tokens": _STRINGS},
        _TEXT, _text,
    ),
    "mme": Release(
        "test", "test", dict.fromkeys(["question_id", "question", "answer", "category"], "string"), _MME, _mme
    ),
    "nocaps": Release(
        "validation", "validation",
        {"image_coco_url": "string", "image_date_captured": "string", "image_file_name": "string",
         "image_height": "int32", "image_width": "int32", "image_id": "int32", "image_license": "int8",
         "image_open_images_id": "string", "annotations_ids": "list<int32>", "annotations_captions": _STRINGS},
        _NOCAPS, _nocaps,
    ),
    "flickr30k": Release(
        "test", "test",
        {"caption": _STRINGS, "sentids": _STRINGS, "img_id": "string", "filename": "string"},
        _FLICKR, _flickr,
    ),
    "llava_bench": Release(
        "train", "train",
        {"question_id": "int64"}
        | dict.fromkeys(["question", "caption", "gpt_answer", "category", "image_name"], "string"),
        _BENCH, _bench,
    ),
    "mm_vet": Release(
        "test", "test",
        dict.fromkeys(["question_id", "question", "answer", "image_source", "capability"], "string"),
        _VET, _vet,
    ),
}  # fmt: skip


def table(release: Release) -> Any:
    """The hub's table, images embedded as {bytes, path}."""
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    answer = pa.struct(
        [("answer", pa.string()), ("answer_confidence", pa.string()), ("answer_id", pa.int64())]
    )
    types = {
        "string": pa.string(), "bool": pa.bool_(), "int8": pa.int8(), "int32": pa.int32(), "int64": pa.int64(),
        "list<string>": pa.list_(pa.string()), "list<int32>": pa.list_(pa.int32()), "answers": pa.list_(answer),
    }  # fmt: skip
    schema = pa.schema([*((name, types[kind]) for name, kind in release.types.items()), ("image", image)])
    rows = [
        {name: record[name] for name in release.types}
        | {"image": {"bytes": png(record["seed"]), "path": None}}
        for record in release.records
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def write_parquet(release: Release, folder: Path, rows_in_group: int = 2) -> None:
    """Two files of the split, named as the hub names them, and one of another split."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    whole = table(release)
    half = len(whole) // 2
    for number, part in enumerate([whole.slice(0, half), whole.slice(half)]):
        path = folder / f"{release.hub_split}-{number:05}-of-00002.parquet"
        pq.write_table(part, path, row_group_size=rows_in_group)
    pq.write_table(whole.slice(0, 1), folder / "other-00000-of-00001.parquet")


def write_disk(release: Release, folder: Path) -> None:
    """What `datasets` saves."""
    import datasets

    dataset = datasets.Dataset(table(release)).cast_column("image", datasets.Image())
    datasets.DatasetDict({release.hub_split: dataset}).save_to_disk(str(folder))


def write_hub(release: Release, folder: Path, config: str | None = None) -> None:
    """A repository of the hub: parquet files and the README that names splits."""
    write_parquet(release, folder / "data")
    lines = ["---", "configs:", f"- config_name: {config or 'default'}", "  data_files:"]
    lines += [f"  - split: {release.hub_split}", f"    path: data/{release.hub_split}-*", "---", ""]
    (folder / "README.md").write_text("\n".join(lines))
