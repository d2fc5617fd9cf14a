"""The made benchmarks: the hub's columns, and what the model is made to answer."""

from __future__ import annotations

import random

from tables import Made, Record
from words import WORDS, annotated, caption, contractions, described, letter, spelt, yes_no

SEPARATOR = "\u2028"


def vqav2(draw: random.Random, n: int = 160, *, commas: bool = False) -> Made:
    """Ten annotators; a question for each contraction; `commas` adds one with two commas between digits."""
    records: list[Record] = []
    answers = []
    twice = [(["1,,000"] * 9 + ["1000"], "1000")] if commas else []
    for given, answer in [*(annotated(draw) for _ in range(n)), *contractions(draw), *twice]:
        number = len(records)
        rows = [
            {"answer": one, "answer_confidence": "yes", "answer_id": 1 + i} for i, one in enumerate(given)
        ]
        records.append(
            {
                "question_type": "what",
                "multiple_choice_answer": given[0],
                "answers": rows,
                "image_id": number // 3,
                "answer_type": draw.choice(("yes/no", "number", "other")),
                "question_id": 1000 * (number // 3) + number % 3,
                "question": f"What is the number {number} on the Dog's sign?",
            }
        )
        answers.append(answer)
    types = dict.fromkeys(["question_type", "multiple_choice_answer", "answer_type", "question"], "string")
    types |= {"answers": "answers", "image_id": "int64", "question_id": "int64"}
    return Made("vqav2", "validation", types, records, answers)


def textvqa(draw: random.Random, n: int = 160) -> Made:
    """As VQAv2's, with up to three OCR tokens."""
    records: list[Record] = []
    answers = []
    for given, answer in [*(annotated(draw) for _ in range(n)), *contractions(draw)]:
        number = len(records)
        records.append(
            {
                "image_id": f"im{number // 2}",
                "question_id": 34000 + number,
                "question": f"what does NASA's sign {number} say?",
                "question_tokens": ["what"],
                "image_width": 8,
                "image_height": 8,
                "flickr_original_url": "",
                "flickr_300k_url": "",
                "answers": given,
                "image_classes": ["sign"],
                "set_name": "val",
                "ocr_tokens": [spelt(draw, draw.choice(WORDS)) for _ in range(number % 4)],
            }
        )
        answers.append(answer)
    strings = ["image_id", "question", "flickr_original_url", "flickr_300k_url", "set_name"]
    types = dict.fromkeys(strings, "string")
    types |= dict.fromkeys(["question_id", "image_width", "image_height"], "int32")
    types |= dict.fromkeys(["question_tokens", "answers", "image_classes", "ocr_tokens"], "strings")
    return Made("textvqa", "validation", types, records, answers)


def mme(draw: random.Random, n_images: int = 6) -> Made:
    """Two questions an image in each category; in some, two spaces before the request, as released."""
    from himap.metrics.mme import CATEGORIES

    records: list[Record] = [
        {
            "question_id": f"{category}/{image:04}.png",
            "question": f"Is it {truth} in {image}?{' ' * spaces}Please answer yes or no.",
            "answer": truth,
            "category": category,
        }
        for category in CATEGORIES
        for image in range(n_images)
        for truth, spaces in (("Yes", 1), ("No", 1 + image % 2))
    ]
    types = dict.fromkeys(["question_id", "question", "answer", "category"], "string")
    return Made("mme", "test", types, records, [yes_no(draw, record["answer"]) for record in records])


def pope(draw: random.Random, n: int = 60) -> Made:
    """Three categories, one after the other as on the hub."""
    records: list[Record] = [
        {
            "id": str(n * c + i),
            "question_id": str(1 + i),
            "question": f"Is there a thing{i} in the image?",
            "answer": draw.choice(("yes", "no")),
            "image_source": f"COCO_val2014_{i // 6:012}",
            "category": category,
        }
        for c, category in enumerate(("adversarial", "popular", "random"))
        for i in range(n)
    ]
    types = dict.fromkeys(["id", "question_id", "question", "answer", "image_source", "category"], "string")
    answers = [yes_no(draw, record["answer"]) for record in records]
    return Made("pope", "test", types, records, answers, parts=("Full", "category"))


def scienceqa(draw: random.Random, n: int = 150) -> Made:
    """Two to five choices, with a hint of no, one or two lines."""
    records: list[Record] = []
    answers = []
    texts = ["hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution"]
    for number in range(n):
        choices = [f"{draw.choice(WORDS)} {i}" for i in range(draw.randint(2, 5))]
        right, other = draw.randrange(len(choices)), draw.randrange(len(choices))
        records.append(
            {
                **dict.fromkeys(texts, ""),
                "question": f"Which is it, {number}?",
                "choices": choices,
                "answer": right,
                "hint": draw.choice(("", "Look at the picture.", "Two lines\nof context: A. and B.")),
                "subject": draw.choice(("natural science", "language science")),
            }
        )
        answers.append(letter(draw, "ABCDE"[right], "ABCDE"[other], choices[right]))
    types = {"question": "string", "choices": "strings", "answer": "int8"} | dict.fromkeys(texts, "string")
    return Made("scienceqa", "test", types, records, answers, config="ScienceQA-IMG")


def nocaps(draw: random.Random, n: int = 60, *, separator: bool = False) -> Made:
    """Ten references an image; `separator` puts a line separator that is no newline into one answer."""
    references = [[caption(draw) for _ in range(10)] for _ in range(n)]
    strings = ["image_coco_url", "image_date_captured", "image_file_name", "image_open_images_id"]
    numbers = ["image_height", "image_width", "image_id"]
    records: list[Record] = [
        {
            **dict.fromkeys(strings, ""),
            **dict.fromkeys(numbers, i),
            "image_license": 0,
            "annotations_ids": list(range(10)),
            "annotations_captions": given,
        }
        for i, given in enumerate(references)
    ]
    types = dict.fromkeys(strings, "string") | dict.fromkeys(numbers, "int32")
    types |= {"image_license": "int8", "annotations_ids": "int32s", "annotations_captions": "strings"}
    answers = [described(draw, given) for given in references]
    if separator:
        answers[n // 2] += f"{SEPARATOR}It is sunny."
    return Made("nocaps", "validation", types, records, answers)


def flickr30k(draw: random.Random, n: int = 60) -> Made:
    """Five references an image."""
    references = [[caption(draw) for _ in range(5)] for _ in range(n)]
    records: list[Record] = [
        {"caption": given, "sentids": ["0"], "img_id": str(i), "filename": f"{i}.jpg"}
        for i, given in enumerate(references)
    ]
    types = {"caption": "strings", "sentids": "strings", "img_id": "string", "filename": "string"}
    return Made("flickr30k", "test", types, records, [described(draw, given) for given in references])


def llava_bench(draw: random.Random, n: int = 30) -> Made:
    """Ten questions of each category."""
    records: list[Record] = [
        {
            "question_id": i,
            "question": f"What is {i}?\nSay it.",
            "caption": f"{caption(draw)}\n{caption(draw)}",
            "gpt_answer": caption(draw),
            "category": ("conv", "detail", "complex")[i % 3],
            "image_name": f"{i:03}.jpg",
        }
        for i in range(n)
    ]
    types = dict.fromkeys(["question", "caption", "gpt_answer", "category", "image_name"], "string")
    answers = [caption(draw) for _ in records]
    return Made("llava_bench", "train", {"question_id": "int64"} | types, records, answers)


def mm_vet(draw: random.Random, n: int = 30) -> Made:
    """Truths with AND and OR, several capabilities."""
    truths = ("3", "a<AND>b", "c<OR>d", "a big dog", "1<AND>2<OR>3")
    needs = ("rec", "ocr,spat", "rec,know", "math,ocr", "rec,gen,know", "rec,ocr")
    records: list[Record] = [
        {
            "question_id": f"v1_{i}",
            "question": f"What is {i}?",
            "answer": truths[i % len(truths)],
            "image_source": "x",
            "capability": needs[i % len(needs)],
        }
        for i in range(n)
    ]
    types = dict.fromkeys(["question_id", "question", "answer", "image_source", "capability"], "string")
    return Made("mm_vet", "test", types, records, [caption(draw) for _ in records])


def all_made(seed: int = 0) -> dict[str, Made]:
    """Folder name -> benchmark; each draws from a stream of its own."""
    makers = (vqav2, textvqa, mme, pope, scienceqa, nocaps, flickr30k, llava_bench, mm_vet)
    made = {maker.__name__: maker(random.Random(seed)) for maker in makers}
    return made | {
        "vqav2_commas": vqav2(random.Random(seed), commas=True),
        "nocaps_separator": nocaps(random.Random(seed), separator=True),
    }
