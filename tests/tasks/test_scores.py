"""Scores of whole tasks, worked by hand on the made-up releases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from himap.errors import UserError
from himap.tasks.base import Score, Task
from tests.tasks.test_sources import task_of


def scored(name: str, folder: Path, outputs: list[str], *overrides: str) -> Score:
    """The score of what a model wrote to the samples in turn."""
    task = task_of(name, folder / "data", "parquet", *overrides)
    samples = task.samples()
    return task.score(samples, [task.parse(text, s) for text, s in zip(outputs, samples, strict=True)])


def test_pope_by_split_macro_and_micro(tmp_path: Path) -> None:
    # Truth: yes, no in each of adversarial, popular, random.
    outputs = ["Yes, there is.", "No", "yes", "Yes", "not at all", "No."]
    score = scored("pope", tmp_path, outputs)
    metrics = score.metrics
    assert [metrics[f"{split}_accuracy"] for split in ("adversarial", "popular", "random")] == [100, 50, 50]
    assert score.primary == "macro_accuracy"
    assert metrics["macro_accuracy"] == pytest.approx(200 / 3) == metrics["micro_accuracy"]
    # Predicted yes: 3 of 6, 2 of them right, 3 truly yes.
    assert (metrics["micro_precision"], metrics["micro_recall"]) == pytest.approx((200 / 3, 200 / 3))
    assert metrics["micro_yes_ratio"] == 50
    assert (metrics["popular_yes_ratio"], metrics["random_f1"]) == (100, 0)
    assert metrics["macro_f1"] == pytest.approx((100 + 100 * 2 / 3 + 0) / 3)
    assert score.per_sample == (1, 1, 1, 0, 0, 1)
    assert score.interval is not None
    assert score.interval[0] < metrics["macro_accuracy"] < score.interval[1]


def test_lmms_evals_parser_wants_the_bare_word(tmp_path: Path) -> None:
    outputs = ["Yes, there is.", "No", "yes", "Yes", "not at all", "No."]
    score = scored("pope", tmp_path, outputs, "options.parser=exact", "options.average=micro")
    assert (score.primary, score.metrics["unparsed"]) == ("micro_accuracy", 3)
    assert score.per_sample == (0, 1, 1, 0, 0, 0)


# Truth: A B A B.
@pytest.mark.parametrize(
    ("parser", "right"),
    [
        ("llava", (1, 1, 1, 0)),
        ("strict", (1, 0, 0, 0)),
        ("letter", (1, 1, 0, 1)),
        ("lmms_eval", (1, 1, 0, 0)),
    ],
)
def test_scienceqa_parsers(parser: str, right: tuple[int, ...], tmp_path: Path) -> None:
    outputs = ["A", "B. dog", "The answer is A.", "(B) dog"]
    score = scored("scienceqa", tmp_path, outputs, f"options.parser={parser}")
    assert score.per_sample == right
    assert score.metrics["accuracy"] == 25 * sum(right)
    assert score.metrics["natural science_accuracy"] == 50 * (right[0] + right[2])


# Truth: A B C D.
@pytest.mark.parametrize(("parser", "right"), [("letter", (1, 0, 0, 1)), ("fastv", (1, 1, 0, 1))])
def test_aokvqa_parsers(parser: str, right: tuple[int, ...], tmp_path: Path) -> None:
    outputs = [" A", "A or B", "hen", "(D"]
    assert scored("aokvqa", tmp_path, outputs, f"options.parser={parser}").per_sample == right


def test_vqav2_normalises_where_annotators_differ(tmp_path: Path) -> None:
    # "yes" x 10; 2 x 4, two x 3, three x 3; "dog's" x 10; "a cat" x 5, "the dog" x 5.
    outputs = ["Yes.", "Two", "Dog's", "A dog!"]
    # LLaVA's processor makes "dog 's", which the raw annotators' "dog's" is not.
    assert scored("vqav2", tmp_path, outputs).per_sample == (1, 1, 0, 1)
    assert scored("vqav2", tmp_path, outputs, "options.processor=none").per_sample == (0, 1, 0, 1)
    always = ["options.processor=none", "options.normalisation=always"]
    score = scored("vqav2", tmp_path, outputs, *always)
    assert score.per_sample == (1, 1, 1, 1)
    three = scored("vqav2", tmp_path, ["no", "three", "dog", "cat"])
    assert three.per_sample == pytest.approx((0, 0.9, 0, 1))
    assert three.metrics == pytest.approx(
        {"accuracy": 47.5, "yes/no_accuracy": 0, "number_accuracy": 90, "other_accuracy": 50}
    )


def test_the_servers_file_has_every_question_of_the_test_set(tmp_path: Path) -> None:
    task = task_of("vqav2", tmp_path / "d", "original", "split=testdev")
    samples = task.samples()
    assert [sample.question for sample in samples] == ["What is 1?", "What is 2?"]
    predictions = [task.parse(text, s) for text, s in zip(["The Dog!", ""], samples, strict=True)]
    score = task.score(samples, predictions)
    assert (score.primary, score.metrics["answered"]) == ("answered", 50)
    assert "server" in score.notes[0]
    assert score.notes[1] == "vqav2_testdev.json: 2 of 3 questions, the others empty"
    [(name, text)] = task.files(samples, predictions).items()
    assert name == "vqav2_testdev.json"
    assert json.loads(text) == [
        {"question_id": 10, "answer": "dog"},
        {"question_id": 20, "answer": ""},
        {"question_id": 30, "answer": ""},
    ]


def test_the_servers_questions_must_be_those_that_were_asked(tmp_path: Path) -> None:
    ids = tmp_path / "ids.jsonl"
    task = task_of("vqav2", tmp_path / "d", "original", "split=testdev", f"options.submission_ids={ids}")
    with pytest.raises(UserError, match=r"submission_ids=\S+ids\.jsonl: must have a question_id"):
        task.check()
    ids.write_text('{"question_id": 10}\n')
    again = task_of("vqav2", tmp_path / "d", "original", "split=testdev", f"options.submission_ids={ids}")
    with pytest.raises(UserError, match=r"submission_ids: 1 samples are not in it, 20 first"):
        again.check()
    (tmp_path / "d" / "llava_vqav2_mscoco_test2015.jsonl").unlink()
    alone = task_of("vqav2", tmp_path / "d", "original", "split=testdev")
    alone.check()
    assert "has the asked questions alone" in alone.score(alone.samples(), ["a", "b"]).notes[1]


def test_textvqa_is_m4cs_soft_accuracy(tmp_path: Path) -> None:
    score = scored("textvqa", tmp_path, ["Stop?", "the stop!", "go", "stop,"])
    assert score.per_sample == (1, 1, 0, 1)
    assert score.metrics["accuracy"] == 75


def mme_outputs(task: Task, wrong: str = "") -> list[str]:
    return [("no" if s.answer == "yes" else "yes") if s.id == wrong else s.answer for s in task.samples()]


def test_mme_sums_accuracy_and_pairs(tmp_path: Path) -> None:
    task = task_of("mme", tmp_path / "d", "parquet")
    best = task.score(task.samples(), mme_outputs(task))
    assert (best.primary, best.metrics["total"], best.metrics["perception"]) == ("total", 2800, 2000)
    assert best.interval == (2800, 2800)
    # count has two images: 3 of 4 questions right, 1 of 2 images.
    worse = task.score(task.samples(), mme_outputs(task, "count/0.png#2"))
    assert (worse.metrics["count_acc"], worse.metrics["count_acc_plus"]) == (75, 50)
    assert (worse.metrics["perception"], worse.metrics["cognition"], worse.metrics["total"]) == (
        1925,
        800,
        2725,
    )
    assert worse.per_sample.count(0) == 1
    assert worse.interval is not None
    assert worse.interval[0] <= 2725 - 50


def test_mme_as_lmms_eval_reads_it(tmp_path: Path) -> None:
    task = task_of("mme", tmp_path / "d", "parquet", "options.parser=lmms_eval")
    short = [f"...{output[0].upper()}" for output in mme_outputs(task)]
    assert task.score(task.samples(), short).metrics["total"] == 2800
    official = task_of("mme", tmp_path / "d", "parquet")
    assert official.score(official.samples(), short).metrics["total"] == 0


def test_mme_without_a_category_has_no_total(tmp_path: Path) -> None:
    task = task_of("mme", tmp_path / "d", "parquet", "limit=4")
    score = task.score(task.samples(), mme_outputs(task))
    assert (score.primary, "total" in score.metrics, score.interval) == ("accuracy", False, None)
    assert any("no sum without" in note for note in score.notes)


def test_mme_leaves_out_an_image_of_which_one_question_failed(tmp_path: Path) -> None:
    task = task_of("mme", tmp_path / "d", "parquet")
    kept = [s for s in task.samples() if s.id != "count/1.png#2"]
    score = task.score(kept, [s.answer for s in kept])
    assert score.metrics["total"] == 2800
    assert any("count/1.png" in note for note in score.notes)


@pytest.mark.parametrize("name", ["nocaps", "flickr30k"])
def test_captions(name: str, tmp_path: Path) -> None:
    outputs = ["A cat number 0 on the grass.", "a dog", "a pig", ""]
    score = scored(name, tmp_path, outputs, "options.tokenizer=python")
    assert score.primary == "cider"
    assert score.metrics["cider"] == pytest.approx(sum(score.per_sample) / 4)
    assert score.per_sample[0] > score.per_sample[1] > score.per_sample[2] == score.per_sample[3] == 0
    assert score.notes == ("CIDEr tokenizer: python",)
    limited = scored(name, tmp_path, outputs[:2], "options.tokenizer=python", "limit=2")
    assert "not comparable" in limited.notes[1]
    # A sample that failed is missing from the weights as well.
    task = task_of(name, tmp_path / "data", "parquet", "options.tokenizer=python")
    partly = task.score(task.samples()[1:], outputs[1:])
    assert partly.notes[1].startswith("CIDEr of 3 of 4 images is not comparable")


def test_what_captions_need_is_known_before_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of("nocaps", tmp_path / "data", "parquet", "options.tokenizer=java")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="tokenizer=java: no `java` on PATH"):
        task.check()


def test_popes_means_without_a_split_are_noted(tmp_path: Path) -> None:
    limited = scored("pope", tmp_path, ["Yes", "No"], "limit=2")
    assert limited.notes == ("POPE: no answer of popular, random; means are over the other splits alone",)
    assert scored("pope", tmp_path, ["Yes", "No"], "split=popular").notes == ()
