"""Evaluation: what is asked, scored, written, resumed, refused and reported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import Questions, TinyModel, image, strategy
from PIL.Image import Image

from himap.errors import UserError
from himap.evaluate import evaluate
from himap.result import Result
from himap.strategy import Strategy
from himap.tasks.base import Generation, Prompt, Sample

HIMAP = strategy(shallow=(2, 0.5, "img2txt"), deep=(4, 0.75, "img2img"))


@pytest.fixture(scope="module")
def model() -> TinyModel:
    return TinyModel()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


class Recorder:
    """A bar that keeps what it was told."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.said: list[str] = []

    def begin(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n

    def say(self, text: str) -> None:
        self.said.append(text)

    def end(self) -> None:
        pass


class Counting(TinyModel):
    """Counts the prompts it was asked, and can fail."""

    def __init__(self, most: int = 99, stop_after: int = 99) -> None:
        super().__init__()
        self.asked = 0
        self.batches: list[int] = []
        self.widths: list[int] = []
        self._most, self._stop_after = most, stop_after

    def go_on(
        self, batch: dict[str, torch.Tensor], prefilled: Any, generation: Generation, form: str = "chat"
    ) -> list[str]:
        n, width = batch["input_ids"].shape
        self.widths.append(width)
        self.batches.append(n)
        if n > self._most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.asked >= self._stop_after:
            raise KeyboardInterrupt
        self.asked += n
        return super().go_on(batch, prefilled, generation, form)


def test_answers_and_score_belong_together(model: TinyModel, tmp_path: Path) -> None:
    result = evaluate(model, HIMAP, Questions(), batch_size=5, answers_path=tmp_path / "answers.jsonl")
    written = rows(tmp_path)
    assert [row["id"] for row in written] == [f"q{number}" for number in range(12)]
    right = [row["prediction"] == row["reference"] == "even" for row in written]
    assert [row["score"] for row in written] == [float(value) for value in right]
    assert 0 < sum(right) < 12, "a task on which everything is right or wrong would show nothing"
    assert result.metrics == {"accuracy": pytest.approx(100 * sum(right) / 12), "primary": "accuracy"}
    assert result.ci95 is not None
    assert result.ci95[0] < result.primary < result.ci95[1]
    assert (result.n_samples, result.n_failed, result.failed) == (12, 0, [])
    assert result.samples_per_second and result.samples_per_second > 0


@pytest.mark.parametrize("batch_size", [1, 12])
def test_the_batch_size_changes_no_answer(model: TinyModel, tmp_path: Path, batch_size: int) -> None:
    evaluate(model, HIMAP, Questions(), batch_size=5, answers_path=tmp_path / "a" / "answers.jsonl")
    evaluate(model, HIMAP, Questions(), batch_size=batch_size, answers_path=tmp_path / "b" / "answers.jsonl")
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_the_strategy_is_what_is_evaluated(model: TinyModel, tmp_path: Path) -> None:
    for name, chosen in {"plain": Strategy("none"), "pruned": HIMAP}.items():
        evaluate(model, chosen, Questions(), batch_size=12, answers_path=tmp_path / name / "answers.jsonl")
    plain, pruned = ([row["text"] for row in rows(tmp_path / name)] for name in ("plain", "pruned"))
    assert plain != pruned
    prompts = [
        Prompt(sample.question, (image(number),)) for number, sample in enumerate(Questions().samples())
    ]
    alone = [model.generate(model.encode([prompt]), Questions().generation)[0] for prompt in prompts]
    assert plain == alone


def test_cost_comes_from_the_prompts_that_were_asked(model: TinyModel, tmp_path: Path) -> None:
    result = evaluate(model, HIMAP, Questions(), batch_size=5, answers_path=tmp_path / "answers.jsonl")
    assert result.kept == [[2, 8], [4, 2]]
    assert {tuple(row["tokens"]) for row in rows(tmp_path)} == {(2, 16, n) for n in (12, 13, 14, 15)}
    assert 0 < result.flops["paper_share"] < result.flops["prefill_share"] < 1
    plain = evaluate(model, Strategy("none"), Questions(), batch_size=5)
    assert plain.flops["prefill_share"] == plain.flops["paper_share"] == 1
    assert result.flops["prefill_tflops"] == pytest.approx(
        plain.flops["prefill_tflops"] * result.flops["prefill_share"]
    )


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = evaluate(
        TinyModel(), HIMAP, Questions(), batch_size=3, answers_path=tmp_path / "a" / "answers.jsonl"
    )
    path = tmp_path / "b" / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Counting(stop_after=6), HIMAP, Questions(), batch_size=3, answers_path=path)
    assert len(rows(tmp_path / "b")) == 6
    with open(path, "a") as file:
        file.write('{"id": "q3", "torn')  # a kill in the middle of a write
    with pytest.raises(KeyboardInterrupt):
        evaluate(Counting(stop_after=3), HIMAP, Questions(), batch_size=3, answers_path=path)
    second, bar = Counting(), Recorder()
    result = evaluate(second, HIMAP, Questions(), batch_size=3, answers_path=path, bar=bar)
    assert second.asked == 3
    assert (bar.total, bar.done) == (12, 12)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert (result.metrics, result.ci95, result.flops) == (whole.metrics, whole.ci95, whole.flops)

    third = Counting()
    again = evaluate(third, HIMAP, Questions(), batch_size=3, answers_path=path)
    assert (third.asked, again.metrics, again.samples_per_second) == (0, whole.metrics, None)
    fourth = Counting()
    evaluate(fourth, HIMAP, Questions(), batch_size=3, answers_path=path, resume=False)
    assert fourth.asked == 12


def test_the_longest_prompts_are_asked_first() -> None:
    """Then memory runs out at once or never, and batches have little padding."""
    model = Counting()
    evaluate(model, HIMAP, Questions(), batch_size=3)
    assert model.widths == sorted(model.widths, reverse=True)
    assert len(set(model.widths)) == 4


def test_questions_about_one_picture_share_it_and_are_answered_alike(tmp_path: Path) -> None:
    """Its file is decoded once, its tokens go through the layers once."""
    loads: list[int] = []

    class Pictured(Questions):
        def samples(self) -> list[Sample]:
            shown = [replace(s, picture=f"p{n // 4}") for n, s in enumerate(super().samples())]
            first = {sample.picture: sample.images for sample in reversed(shown)}
            return [replace(sample, images=first[sample.picture]) for sample in shown]

    def load(number: int) -> Image:
        loads.append(number)
        return image(number)

    tokens: list[int] = []
    model = TinyModel()
    layer = model.hf.model.language_model.layers[1]
    layer.register_forward_pre_hook(lambda _, args: tokens.append(args[0].shape[:2].numel()))
    for one in (Strategy("none"), HIMAP):
        loads.clear()
        together, alone = (tmp_path / f"{one.name}-{how}.jsonl" for how in ("together", "alone"))
        evaluate(model, one, Pictured(load=load), batch_size=8, answers_path=together)
        assert loads == [0, 4, 8]
        shared = sum(tokens)
        evaluate(model, one, Pictured(load=load), batch_size=1, answers_path=alone)
        assert sum(tokens) - shared > 1.5 * shared
        tokens.clear()
        answers = [{json.loads(line)["id"]: line for line in path.open()} for path in (together, alone)]
        assert answers[0] == answers[1]


def test_answers_of_other_settings_are_refused(model: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    task = Questions(n=2)
    settings: dict[str, Any] = {"pruning": {"name": "a", "stages": [1, 2]}, "model": {"name": "tiny"}}
    first = evaluate(model, HIMAP, task, batch_size=3, answers_path=path, identity=settings)
    before = path.read_bytes()
    other = {**settings, "pruning": {"name": "a", "stages": [1, 3]}}
    with pytest.raises(UserError, match=r"pruning\.stages: \[1, 2\] -> \[1, 3\]"):
        evaluate(model, HIMAP, task, batch_size=3, answers_path=path, identity=other)
    assert path.read_bytes() == before
    same = evaluate(
        model, HIMAP, task, batch_size=3, answers_path=path, identity=dict(reversed(settings.items()))
    )
    assert same.config_sha256 == first.config_sha256
    changed = evaluate(model, HIMAP, task, batch_size=3, identity=other)
    assert changed.config_sha256 != first.config_sha256


def broken_at(*numbers: int) -> Any:
    def load(number: int) -> Image:
        if number in numbers:
            raise OSError(f"cannot identify image file {number}")
        return image(number)

    return load


def test_a_failing_sample_is_reported_and_counted(model: TinyModel, tmp_path: Path) -> None:
    whole = evaluate(model, HIMAP, Questions(), batch_size=5, answers_path=tmp_path / "a" / "answers.jsonl")
    path, bar = tmp_path / "b" / "answers.jsonl", Recorder()
    result = evaluate(model, HIMAP, Questions(load=broken_at(4, 7)), batch_size=5, answers_path=path, bar=bar)
    assert (result.n_samples, result.n_failed, result.failed) == (10, 2, ["q4", "q7"])
    assert sorted(text for text in bar.said if "failed" in text) == [
        f"task=questions: sample q{n} failed: OSError: cannot identify image file {n}" for n in (4, 7)
    ]
    for good, row in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        if row["id"] in ("q4", "q7"):
            assert (row["prediction"], row["score"], row["text"]) == (None, None, None)
            assert "OSError" in row["error"]
        else:
            assert row == good
    scores = [row["score"] for row in rows(tmp_path / "b") if row["error"] is None]
    assert result.primary == pytest.approx(100 * sum(scores) / 10)

    mended = evaluate(model, HIMAP, Questions(), batch_size=5, answers_path=path)
    assert (mended.n_failed, mended.metrics) == (0, whole.metrics)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_a_failing_sample_can_end_the_run(model: TinyModel) -> None:
    with pytest.raises(UserError, match=r"sample q4 failed: OSError: .*task\.on_bad_sample=skip"):
        evaluate(model, HIMAP, Questions(load=broken_at(4)), batch_size=5, fail_on_bad_sample=True)


def test_no_answer_at_all_is_an_error(model: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no sample was answered; the first reason: OSError: cannot identify"
    ):
        evaluate(model, HIMAP, Questions(load=broken_at(*range(12))), batch_size=5)


def test_out_of_memory_halves_the_batch(tmp_path: Path) -> None:
    evaluate(TinyModel(), HIMAP, Questions(), batch_size=12, answers_path=tmp_path / "a" / "answers.jsonl")
    model, bar = Counting(most=3), Recorder()
    result = evaluate(
        model, HIMAP, Questions(), batch_size=12, answers_path=tmp_path / "b" / "answers.jsonl", bar=bar
    )
    assert model.batches == [12, 6, 3, 3, 3, 3]
    assert bar.said == [
        "out of memory with 12 prompts at once; going on with 6",
        "out of memory with 6 prompts at once; going on with 3",
    ]
    assert result.n_failed == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_memory_for_not_even_one_prompt_is_a_failure() -> None:
    with pytest.raises(
        UserError, match="no sample was answered; the first reason: RuntimeError: CUDA out of"
    ):
        evaluate(Counting(most=0), HIMAP, Questions(n=2), batch_size=2)


def test_a_sample_id_twice_is_refused(model: TinyModel) -> None:
    class Twice(Questions):
        def samples(self) -> list[Sample]:
            return [*super().samples(), super().samples()[3]]

    with pytest.raises(Exception, match="the sample id 'q3' occurs more than once"):
        evaluate(model, HIMAP, Twice(), batch_size=5)


def test_a_stage_beyond_the_model_fails_before_anything_is_asked() -> None:
    model = Counting()
    with pytest.raises(UserError, match="must be below the model's 6 decoder layers"):
        evaluate(model, strategy(shallow=(6, 0.5, "img2txt")), Questions(), batch_size=5)
    assert model.asked == 0


def test_a_result_is_read_back_as_written(model: TinyModel, tmp_path: Path) -> None:
    result = evaluate(model, HIMAP, Questions(n=3), batch_size=5)
    result.save(tmp_path / "result.json")
    assert Result.load(tmp_path / "result.json") == result
    assert {
        "model",
        "pruning",
        "task",
        "split",
        "n_samples",
        "n_failed",
        "metrics",
        "ci95",
        "kept",
        "flops",
    } | {
        "samples_per_second",
        "environment",
        "config_sha256",
    } <= json.loads((tmp_path / "result.json").read_text()).keys()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": 1'])
def test_a_file_that_is_no_result_is_a_clear_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result\.json: cannot be read as a result"):
        Result.load(tmp_path / "result.json")


def test_a_metric_without_value_becomes_null(tmp_path: Path, model: TinyModel) -> None:
    class Undefined(Questions):
        def score(self, samples: Sequence[Sample], predictions: Sequence[str]) -> Any:
            score = super().score(samples, predictions)
            score.metrics["f1"] = float("nan")
            return score

    evaluate(model, HIMAP, Undefined(n=3), batch_size=5).save(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["f1"] is None
