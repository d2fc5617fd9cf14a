"""What a model is asked: prompts letter by letter, decoding settings, limits; wrong settings are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from himap.errors import ConfigError, UserError
from himap.tasks.base import Generation, Sample, Task
from tests.tasks.releases import RELEASES, SHORT, write_parquet
from tests.tasks.test_sources import task_of


def first(task: Task) -> Sample:
    return task.samples()[0]


def prompts(name: str, folder: Path, family: str, *overrides: str) -> list[str]:
    task = task_of(name, folder / "data", "parquet", *overrides)
    return [task.prompt(sample, family).text for sample in task.samples()]


EXPECTED = {
    ("pope", "llava"): f"Is there a thing0 in the image?{SHORT}",
    ("pope", "qwen_vl_chat"): "Is there a thing0 in the image? Answer:",
    ("vqav2", "llava"): f"What is 0?{SHORT}",
    ("vqav2", "qwen_vl_chat"): "What is 0? Answer:",
    # The release keeps the line of an image in which no text was read.
    ("textvqa", "llava"): f"What does sign 0 say?\nReference OCR token: {SHORT}",
    ("textvqa", "qwen_vl_chat"): "what does sign 0 say? Answer:",
    ("mme", "llava"): f"Is it Yes in 0?{SHORT}",
    ("mme", "qwen_vl_chat"): "Is it Yes in 0? Please answer yes or no.",
    ("scienceqa", "llava"): "Which is it, 0?\nA. cat\nB. dog\n"
    "Answer with the option's letter from the given choices directly.",
    (
        "scienceqa",
        "qwen_vl_chat",
    ): "Context: N/A\nQuestion: Which is it, 0?\nOptions: A. cat\nB. dog\nAnswer:",
    ("aokvqa", "llava"): "\nAnalyse the image and choose the best answer for the following question:\n"
    "What is this?\nOptions: (A) cat (B) dog (C) hen (D) cow\nJust output the letter of the correct answer.",
    ("nocaps", "llava"): "Provide a one-sentence caption for the provided image.",
    ("nocaps", "qwen_vl_chat"): "Describe the image in English:",
    ("flickr30k", "internvl_chat"): "Provide a one-sentence caption for the provided image.",
    ("llava_bench", "llava"): "What is 0?",
    ("mm_vet", "native"): "What is 0?",
}


@pytest.mark.parametrize(("name", "family"), EXPECTED, ids="-".join)
def test_the_prompt_is_the_official_one(name: str, family: str, tmp_path: Path) -> None:
    assert prompts(name, tmp_path, family)[0] == EXPECTED[name, family]


def test_context_and_ocr_tokens_come_with_the_question(tmp_path: Path) -> None:
    hinted = prompts("scienceqa", tmp_path / "s", "llava")[1]
    assert hinted.startswith(
        "Context: Two lines\nof context.\nWhich is it, 1?\nA. cat\nB. dog\nC. a red. hen\nAnswer"
    )
    assert prompts("textvqa", tmp_path / "t", "llava")[1] == (
        f"What does sign 1 say?\nReference OCR token: STOP, a,b{SHORT}"
    )
    assert (
        prompts("textvqa", tmp_path / "t", "llava", "options.ocr=false")[1] == f"What does sign 1 say?{SHORT}"
    )
    assert prompts("aokvqa", tmp_path / "a", "llava", "options.template=llava")[0] == (
        "What is this?\nA. cat\nB. dog\nC. hen\nD. cow\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_two_spaces_before_mmes_request_leave_no_trace(tmp_path: Path) -> None:
    assert prompts("mme", tmp_path, "llava")[1] == f"Is it No in 0?{SHORT}"


@pytest.mark.parametrize("name", RELEASES)
def test_internvl_and_native_models_are_asked_as_llava(name: str, tmp_path: Path) -> None:
    for family in ("internvl_chat", "native"):
        assert prompts(name, tmp_path, family) == prompts(name, tmp_path, "llava")


DECODING = {
    "pope": (Generation(128), Generation(10, 1)),
    "vqav2": (Generation(128), Generation(10, 1)),
    "textvqa": (Generation(128), Generation(10, 1)),
    "mme": (Generation(128), Generation(128)),
    "scienceqa": (Generation(1024), Generation(10, 1)),
    "aokvqa": (Generation(1), Generation(1)),
    "nocaps": (Generation(64), Generation(30, 8, length_penalty=0.0)),
    "flickr30k": (Generation(64), Generation(30, 8, length_penalty=0.0)),
    "llava_bench": (Generation(1024), Generation(1024)),
    "mm_vet": (Generation(1024), Generation(1024)),
}


@pytest.mark.parametrize("name", RELEASES)
def test_decoding_follows_the_family_and_can_be_changed(name: str, tmp_path: Path) -> None:
    task = task_of(name, tmp_path / "data", "parquet")
    assert (task.generation_for("llava"), task.generation_for("qwen_vl_chat")) == DECODING[name]
    changed = task_of(name, tmp_path / "data", "parquet", "generation.max_new_tokens=77")
    assert {changed.generation_for(f).max_new_tokens for f in ("llava", "qwen_vl_chat")} == {77}


def test_a_longest_answer_below_the_shortest_shortens_that(tmp_path: Path) -> None:
    task = task_of("nocaps", tmp_path / "data", "parquet", "generation.max_new_tokens=5")
    assert task.generation_for("qwen_vl_chat") == Generation(5, 5, length_penalty=0.0)


def test_data_without_ocr_tokens_serve_without_them(tmp_path: Path) -> None:
    release = RELEASES["textvqa"]
    types = {name: kind for name, kind in release.types.items() if name != "ocr_tokens"}
    write_parquet(replace(release, types=types), tmp_path / "data")
    plain = prompts("textvqa", tmp_path, "llava", "options.ocr=false")
    assert plain[1] == f"What does sign 1 say?{SHORT}"
    with pytest.raises(UserError, match="the column 'ocr_tokens' is missing"):
        prompts("textvqa", tmp_path, "llava")


def test_qwens_short_answers_are_completions_and_its_letters_are_ranked(tmp_path: Path) -> None:
    forms = {}
    for name in RELEASES:
        task = task_of(name, tmp_path / name, "parquet")
        forms[name] = task.prompt(first(task), "qwen_vl_chat").form
        assert task.prompt(first(task), "llava").form == "chat"
    chat = {"mme", "aokvqa", "llava_bench", "mm_vet"}
    assert forms == {name: "chat" if name in chat else "raw" for name in RELEASES}
    science = task_of("scienceqa", tmp_path / "scienceqa", "parquet")
    assert science.prompt(science.samples()[1], "qwen_vl_chat").options == (" A", " B", " C")
    assert science.prompt(first(science), "llava").options == ()
    ranked = task_of("scienceqa", tmp_path / "scienceqa", "parquet", "options.answer=rank")
    assert ranked.prompt(first(ranked), "llava").options == (" A", " B")


def test_mme_is_limited_by_image(tmp_path: Path) -> None:
    def ids(limit: int) -> list[str]:
        return [sample.id for sample in task_of("mme", tmp_path / "d", "parquet", f"limit={limit}").samples()]

    assert ids(5) == ids(4) == ["existence/0.png#1", "existence/0.png#2", "count/0.png#1", "count/0.png#2"]
    with pytest.raises(ConfigError, match=r"task\.limit=1: must be at least 2 \(the samples of one image"):
        ids(1)


def test_mme_is_limited_by_image_where_the_first_record_is_broken(tmp_path: Path) -> None:
    records = [dict(record) for record in RELEASES["mme"].records]
    records[0]["answer"] = "perhaps"
    write_parquet(replace(RELEASES["mme"], records=records), tmp_path / "d")
    ids = [sample.id for sample in task_of("mme", tmp_path / "d", "parquet", "limit=5").samples()]
    assert ids == ["existence/0.png-0", "existence/0.png#2", "count/0.png#1", "count/0.png#2"]


def test_a_split_of_pope_is_one_category(tmp_path: Path) -> None:
    for source in ("parquet", "original"):
        task = task_of("pope", tmp_path / source, source, "split=popular")
        assert [sample.category for sample in task.samples()] == ["popular"] * 2


def test_flickr_has_karpathys_splits_in_the_original_files(tmp_path: Path) -> None:
    sizes = [
        len(task_of("flickr30k", tmp_path / "o", "original", f"split={split}").samples())
        for split in ("test", "train", "all")
    ]
    assert sizes == [4, 1, 5]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split=tset", r"task\.split=tset: unknown; did you mean test\?"),
        ("options.parser=lmms", r"task\.options\.parser=lmms: unknown.*official, exact"),
        ("options.parsr=exact", r"task\.options=parsr: unknown; did you mean parser\?"),
        ("data.source=disc", r"task\.data\.source=disc: unknown; did you mean disk\?"),
        ("data.pth=x", r"task\.data=pth: unknown; did you mean path\?"),
        ("data.path=null", r"task\.data\.path=null: must be given for task\.data\.source=parquet"),
        ("data.revision=7", r"task\.data\.revision=7: must be a text"),
        ("data.ids=lmms-lab/POPE", r"task\.data\.ids=lmms-lab/POPE: must be a list"),
        ("data.images=x", r"task\.data\.images=x: is for task\.data\.source=original alone"),
    ],
)
def test_wrong_settings_are_refused(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        task_of("pope", tmp_path / "d", "parquet", override)


def test_an_option_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.options\.ocr=maybe: must be true or false"):
        task_of("textvqa", tmp_path / "d", "parquet", "options.ocr=maybe")
    with pytest.raises(ConfigError, match=r"task\.judge=null: must be given"):
        task_of("mm_vet", tmp_path / "d", "parquet", "judge=null")
