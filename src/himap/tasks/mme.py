"""MME: two yes/no questions an image in 14 categories; perception, cognition, and their sum.

Source: Fu et al., "MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models"; prompt as
LLaVA-1.5's llava_mme.jsonl. The HiMAP paper's figures can only be the sum (at most 2800).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from himap.metrics.mme import CATEGORIES, PARSERS, MmeAnswer, MmeScores, mme_scores, parse_mme
from himap.tasks.base import Generation, Sample, Score
from himap.tasks.benchmark import QWEN, SHORT, Benchmark
from himap.tasks.intervals import category_interval
from himap.tasks.records import Record, yes_or_no

if TYPE_CHECKING:
    from himap.config import TaskConfig

_REQUEST = "Please answer yes or no."


class Mme(Benchmark):
    SPLITS = ("test",)
    COLUMNS = ("question_id", "question", "answer", "category")
    QWEN_GENERATION = Generation(max_new_tokens=128)
    PICTURE = "question_id"
    OPTIONS: ClassVar = {"parser": PARSERS}
    FORM: ClassVar = {}  # Qwen-VL's own script uses its conversation here

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._n_asked: dict[str, int] = {}

    def sample(self, record: Record, row: int) -> Sample:
        image, category = record["question_id"], record["category"]
        if category not in CATEGORIES:
            raise ValueError(f"the category {category!r} is not one of MME's")
        number = self._n_asked[image] = self._n_asked.get(image, 0) + 1
        return Sample(
            id=f"{image}#{number}",
            question=record["question"],
            answer=yes_or_no(record["answer"]),
            category=category,
            group=image,
            question_id=image,
        )

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        release = root / "MME_Benchmark_release_version"
        release = release if release.is_dir() else root
        pictures = self.images_in(release)
        for category in CATEGORIES:
            folder = release / category
            deep = (folder / "questions_answers_YN").is_dir()
            images = pictures / category / "images" if deep else pictures / category
            texts = sorted((folder / "questions_answers_YN" if deep else folder).glob("*.txt"))
            if not texts:
                raise FileNotFoundError(2, "no questions", str(folder))
            for path in texts:
                image = next((p for p in images.glob(f"{path.stem}.*") if p.suffix != ".txt"), None)
                image = image or images / f"{path.stem}.jpg"
                for line in path.read_text(encoding="utf-8").splitlines():
                    if line.strip():
                        question, answer = line.split("\t")
                        record = {"question": question, "answer": answer, "category": category}
                        yield self.sample({**record, "question_id": f"{category}/{image.name}"}, 0), image

    def text(self, sample: Sample, family: str) -> str:
        if family == QWEN:
            return sample.question
        return sample.question.strip().removesuffix(_REQUEST).rstrip() + SHORT

    def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Score:
        answers = [
            MmeAnswer(s.category, s.group, s.answer, p) for s, p in zip(samples, predictions, strict=True)
        ]
        parser = self.options["parser"]
        # An image of which one question failed has no pair: it is left out, and said so.
        scores = mme_scores(answers, on_broken_pair="exclude", parser=parser)
        right = [parse_mme(item.text, parser) == item.answer for item in answers]
        notes = list(self.notes)
        if scores.excluded:
            notes.append(f"MME: images without both answers are left out: {', '.join(scores.excluded)}")
        if scores.missing:
            notes.append(f"MME: no sum without {', '.join(scores.missing)}; the headline is the accuracy")
        whole = scores.total is not None
        return Score(
            "total" if whole else "accuracy",
            _figures(scores),
            tuple(map(float, right)),
            notes=tuple(notes),
            interval=_interval(answers, right, scores) if whole else None,
        )


def _figures(scores: MmeScores) -> dict[str, float]:
    sums = {"total": scores.total, "perception": scores.perception, "cognition": scores.cognition}
    figures = {name: value for name, value in sums.items() if value is not None}
    figures["accuracy"] = 100 * scores.accuracy
    for name, category in scores.categories.items():
        figures |= {
            name: category.score,
            f"{name}_acc": category.accuracy,
            f"{name}_acc_plus": category.accuracy_plus,
        }
    return figures


def _interval(answers: Sequence[MmeAnswer], right: Sequence[bool], scores: MmeScores) -> tuple[float, float]:
    """Interval of the total; images are drawn, with both of their questions."""
    n_right: dict[str, int] = {}
    for item, one in zip(answers, right, strict=True):
        n_right[item.image] = n_right.get(item.image, 0) + one
    kept = [i for i, item in enumerate(answers) if f"{item.category}/{item.image}" not in scores.excluded]
    # Accuracy and accuracy_plus of a category are both means over its questions.
    points = [100 * (right[i] + (n_right[answers[i].image] == 2)) for i in kept]
    return category_interval(
        points, [answers[i].category for i in kept], [answers[i].image for i in kept], mean=False
    )
