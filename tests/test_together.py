"""Strategies evaluated together: the answers of separate evaluations, each resumed and refused on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import Questions, TinyModel, strategy
from test_evaluate import Recorder

from himap.errors import UserError
from himap.evaluate import answer, evaluate
from himap.models import greedy
from himap.pruning import Pruner
from himap.result import Result
from himap.reuse import Reuse
from himap.strategy import Strategy
from himap.tasks.base import Generation, Prompt, Sample
from himap.together import Request, evaluate_together

HIMAP = strategy(shallow=(2, 0.5, "img2txt"), deep=(4, 0.75, "img2img"))
MANY = [
    Strategy("none"),
    HIMAP,
    strategy(shallow=(2, 0.5, "img2txt"), deep=(3, 0.25, "img2img")),
    strategy(shallow=(1, 0.75, "random")),
]


@pytest.fixture
def model() -> TinyModel:
    return TinyModel()


class Choices(Questions):
    """The same questions with options to rank."""

    def prompt(self, sample: Sample, family: str) -> Prompt:
        prompt = super().prompt(sample, family)
        return Prompt(prompt.text, prompt.images, options=("12 1", "7", "30 2 2"))


class Ranking(TinyModel):
    """Reads options as numbers."""

    def option_ids(self, option: str, form: str) -> list[int]:
        return [int(token) for token in option.split()]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def requests(folder: Path) -> list[Request]:
    return [Request(one, folder / f"{number}" / "answers.jsonl") for number, one in enumerate(MANY)]


def answered_by_generate(model: TinyModel, one: Strategy, task: Questions) -> dict[str, str]:
    """What transformers' own `generate` says under a pruner, one prompt at a time."""
    with Pruner(model.hf, one, image_token_ids=model.image_token_ids):
        return {sample.id: answer(model, task, [sample])[0]["text"] for sample in task.samples()}


def check_equal(model: TinyModel, task: Questions, folder: Path, batch_size: int = 5) -> list[Result]:
    together = evaluate_together(model, requests(folder / "together"), task, batch_size=batch_size)
    for number, found in enumerate(together):
        path = folder / "alone" / f"{number}" / "answers.jsonl"
        want = evaluate(model, MANY[number], task, batch_size=batch_size, answers_path=path)
        assert isinstance(found, Result)
        assert rows(folder / "together" / f"{number}" / "answers.jsonl") == rows(path)
        texts_of = {row["id"]: row["text"].rstrip(" 0") for row in rows(path)}  # 0 fills up a row's end
        by_generate = answered_by_generate(model, MANY[number], task)
        assert texts_of == {id: text.rstrip(" 0") for id, text in by_generate.items()}
        ours, its = found.to_dict(), want.to_dict()
        assert ours.pop("samples_per_second") is None and its.pop("samples_per_second") > 0
        assert ours == its
    texts = [
        tuple(r["text"] for r in rows(folder / "together" / f"{n}" / "answers.jsonl"))
        for n in range(len(MANY))
    ]
    assert len(set(texts)) > 2, "strategies that answer alike would show nothing"
    return together


@pytest.mark.parametrize("batch_size", [1, 5])
def test_results_are_those_of_separate_evaluations(model: TinyModel, tmp_path: Path, batch_size: int) -> None:
    check_equal(model, Questions(), tmp_path, batch_size)


def test_so_are_long_answers_and_first_tokens(model: TinyModel, tmp_path: Path) -> None:
    for number, generation in enumerate((Generation(max_new_tokens=30, min_new_tokens=4), Generation(1))):
        check_equal(model, Questions(generation=generation), tmp_path / f"{number}")


def test_rows_stop_where_generate_stops_them(model: TinyModel, tmp_path: Path) -> None:
    """Every second token ends an answer, so that rows of a batch end at different steps."""
    model.stop_token_ids = tuple(range(4, 90, 2))
    check_equal(model, Questions(generation=Generation(max_new_tokens=8)), tmp_path / "a")
    check_equal(model, Questions(generation=Generation(max_new_tokens=8, min_new_tokens=3)), tmp_path / "b")


def test_options_are_ranked_behind_each_fork(tmp_path: Path) -> None:
    class Parsed(Choices):
        def parse(self, output: str, sample: Sample) -> str:
            return output

    check_equal(Ranking(), Parsed(), tmp_path)


def test_a_checkpoint_that_punishes_repetition_is_followed(model: TinyModel, tmp_path: Path) -> None:
    task = Questions(generation=Generation(max_new_tokens=8))
    evaluate(model, HIMAP, task, batch_size=5, answers_path=tmp_path / "before.jsonl")
    model.hf.generation_config.repetition_penalty = 3.0
    # One by one: whether padding counts as said before depends on the version of transformers.
    check_equal(model, task, tmp_path, batch_size=1)
    ragged = evaluate_together(model, requests(tmp_path / "ragged"), task, batch_size=5)
    assert all(isinstance(one, Result) for one in ragged)
    for one, other in zip(requests(tmp_path / "ragged"), requests(tmp_path / "together"), strict=True):
        # What fills a row up behind its end depends on the others of its batch.
        ours, its = ([row["text"].rstrip(" 0") for row in rows(each.answers_path)] for each in (one, other))
        assert ours == its
    assert rows(tmp_path / "before.jsonl") != rows(tmp_path / "together" / "1" / "answers.jsonl")


@pytest.mark.parametrize("how", ["beams", "rules"])
def test_what_cannot_fork_is_evaluated_one_by_one(model: TinyModel, tmp_path: Path, how: str) -> None:
    beams = 2 if how == "beams" else 1
    if how == "rules":
        model.hf.generation_config.no_repeat_ngram_size = 2
    task = Questions(generation=Generation(max_new_tokens=3, num_beams=beams))
    assert not greedy.is_plain(model.hf, task.generation)
    bar = Recorder()
    found = evaluate_together(model, requests(tmp_path), task, batch_size=5, bar=bar)
    assert all(isinstance(one, Result) and one.samples_per_second for one in found)
    assert bar.done == bar.total == 12 * len(MANY)


def test_the_vision_tower_runs_once_for_all(model: TinyModel, tmp_path: Path) -> None:
    calls: list[int] = []
    model.hf.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    reuse = Reuse(100)
    evaluate_together(model, requests(tmp_path), Questions(), batch_size=4, reuse=reuse)
    assert len(calls) == 3
    more = [Request(strategy(shallow=(3, 0.5, "all2img"))), Request(strategy(shallow=(2, 0.1, "uniform")))]
    evaluate_together(model, more, Questions(), batch_size=4, reuse=reuse)
    assert len(calls) == 3, "a second group pays nothing for the tower"


def test_each_goes_on_with_its_own_answers(model: TinyModel, tmp_path: Path) -> None:
    check_equal(model, Questions(), tmp_path)
    again = requests(tmp_path / "together")
    kept = [rows(request.answers_path) for request in again]
    # The first strategy lost its last answers, the third all.
    for request, n in zip(again, (7, 12, 0, 12), strict=True):
        lines = request.answers_path.read_text().splitlines(keepends=True)
        request.answers_path.write_text("".join(lines[:n]))
    asked: list[int] = []
    encode, task = model.encode, Questions()
    model.encode = lambda prompts: asked.append(len(prompts)) or encode(prompts)  # type: ignore[method-assign]
    bar = Recorder()
    evaluate_together(model, again[:2], task, batch_size=5, bar=bar)
    assert sum(asked) == 5 and (bar.total, bar.done) == (12, 12)
    evaluate_together(model, again, task, batch_size=5)
    assert sum(asked) == 5 + 12
    assert kept == [rows(request.answers_path) for request in again]


def test_a_request_that_is_refused_does_not_harm_the_others(model: TinyModel, tmp_path: Path) -> None:
    one, two, three = requests(tmp_path)[:3]
    evaluate(model, HIMAP, Questions(), batch_size=5, answers_path=one.answers_path)
    deep = Request(strategy(shallow=(99, 0.5, "img2txt")))
    found = evaluate_together(model, [one, two, deep, three], Questions(), batch_size=5)
    assert isinstance(found[0], UserError) and "other settings" in str(found[0])
    assert isinstance(found[2], UserError) and "99" in str(found[2])
    assert isinstance(found[1], Result) and isinstance(found[3], Result)


def broken(number: int) -> Any:
    from fakes import image

    if number == 3:
        raise OSError("cannot read image 3")
    return image(number)


def test_a_bad_sample_fails_for_all_and_is_said_once(model: TinyModel, tmp_path: Path) -> None:
    bar = Recorder()
    found = evaluate_together(model, requests(tmp_path), Questions(load=broken), batch_size=5, bar=bar)
    assert all(isinstance(one, Result) and one.failed == ["q3"] and one.n_samples == 11 for one in found)
    assert len(bar.said) == 1 and "q3" in bar.said[0] and bar.done == 12
    with pytest.raises(UserError, match="q3"):
        evaluate_together(
            model, requests(tmp_path / "b"), Questions(load=broken), batch_size=5, fail_on_bad_sample=True
        )


def test_a_batch_too_large_for_memory_is_halved(model: TinyModel, tmp_path: Path) -> None:
    go_on = model.go_on

    def small(batch: Any, *args: Any) -> list[str]:
        if len(batch["input_ids"]) > 3:
            raise RuntimeError("CUDA out of memory")
        return go_on(batch, *args)

    model.go_on = small  # type: ignore[method-assign]
    bar = Recorder()
    found = evaluate_together(model, requests(tmp_path / "a"), Questions(), batch_size=12, bar=bar)
    assert bar.said == [
        "out of memory with 12 prompts at once; going on with 6",
        "out of memory with 6 prompts at once; going on with 3",
    ]
    want = evaluate_together(TinyModel(), requests(tmp_path / "b"), Questions(), batch_size=3)
    assert [one.metrics for one in found] == [one.metrics for one in want]
