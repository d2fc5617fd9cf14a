"""The same samples come from every source, and what is wrong with the data is said by name."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from himap.config import TaskConfig
from himap.errors import ConfigError, UserError
from himap.paths import conf_dir
from himap.tasks import load
from himap.tasks.base import Task
from tests.tasks.releases import RELEASES, png, write_disk, write_hub, write_json, write_parquet

SOURCES = ("parquet", "disk", "hub", "original")


def config_of(name: str, folder: Path, source: str, *overrides: str) -> TaskConfig:
    """The configuration of a task on its fixture, which is written into `folder` first."""
    release = RELEASES[name]
    write = {"parquet": write_parquet, "disk": write_disk, "hub": write_hub}.get(source)
    if not folder.exists():
        write(release, folder) if write else release.original(folder)
    where = [f"data.path={folder}"]
    if source == "hub":
        # A folder in the hub's form stands for the hub; the first name is not to be had.
        where = [f"data.ids=[nobody/nothing,{folder}]", "data.name=null"]
    return configured(name, f"data.source={source}", *where, *overrides)


def configured(name: str, *overrides: str) -> TaskConfig:
    """conf/task/<name>.yaml, changed as on the command line."""
    given = OmegaConf.load(conf_dir() / "task" / f"{name}.yaml")
    changes = OmegaConf.from_dotlist(list(overrides))
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TaskConfig), given, changes))
    assert isinstance(config, TaskConfig)
    return config


def task_of(name: str, folder: Path, source: str, *overrides: str) -> Task:
    """The task of `config_of`."""
    return load(config_of(name, folder, source, *overrides))


def facts(task: Task, name: str) -> list[Any]:
    """What a sample is, without the ids that a source may lack."""
    facts = []
    for sample in task.samples():
        prompt = task.prompt(sample, "llava")
        pixel = prompt.images[0].getpixel((0, 0))
        category = "" if name == "scienceqa" else sample.category
        facts.append(
            (prompt.text, pixel, sample.choices, sample.references, sample.answer, category, sample.group)
        )
    return facts


@pytest.mark.parametrize("name", RELEASES)
def test_every_source_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    expected = facts(task_of(name, tmp_path / "parquet", "parquet"), name)
    assert len(expected) == len(RELEASES[name].records)
    for source in SOURCES[1:]:
        assert sorted(facts(task_of(name, tmp_path / source, source), name)) == sorted(expected), source


@pytest.mark.parametrize("name", ["vqav2", "textvqa", "pope", "aokvqa", "mme"])
@pytest.mark.parametrize("source", SOURCES)
def test_questions_about_one_image_say_so(name: str, source: str, tmp_path: Path) -> None:
    samples = task_of(name, tmp_path / "d", source).samples()
    shown = [sample.images[0]().tobytes() for sample in samples]
    pictures = [sample.picture for sample in samples]
    assert all(pictures)
    for one, other in itertools.combinations(range(len(samples)), 2):
        if pictures[one] == pictures[other]:
            assert shown[one] == shown[other]
    assert (len(set(pictures)) < len(samples)) == (name in ("textvqa", "pope", "mme"))


def test_one_config_of_several_is_read(tmp_path: Path) -> None:
    for name, keep in (("A", slice(0, 1)), ("B", slice(1, 3))):
        release = replace(RELEASES["pope"], records=RELEASES["pope"].records[keep])
        write_parquet(release, tmp_path / "d" / name)
    assert len(task_of("pope", tmp_path / "d", "parquet", "data.name=B").samples()) == 2


def test_images_are_decoded_when_asked_and_only_then(tmp_path: Path) -> None:
    task = task_of("pope", tmp_path / "d", "original")
    for path in (tmp_path / "d" / "val2014").iterdir():
        path.unlink()
    sample = task.samples()[0]
    with pytest.raises(
        UserError, match=r"task\.data\.path=\S+/d: sample adversarial-1: its image .*No such file"
    ):
        task.prompt(sample, "llava")


def test_a_parquet_table_is_not_read_whole_for_a_few_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    task = task_of("nocaps", tmp_path / "d", "parquet", "limit=1")
    read: list[tuple[int, list[str]]] = []
    real = pq.ParquetFile.read_row_group

    def spy(self: Any, group: int, columns: list[str]) -> Any:
        read.append((group, columns))
        return real(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    task.samples()
    assert read == [(0, ["image_id", "annotations_captions"])]


@pytest.mark.parametrize("data", [b"", b"no image", png(1)[:60]], ids=["empty", "text", "truncated"])
def test_a_broken_image_names_the_sample(data: bytes, tmp_path: Path) -> None:
    task = task_of("nocaps", tmp_path / "d", "original")
    (tmp_path / "d" / "images" / "2.png").write_bytes(data)
    task.prompt(task.samples()[1], "llava")
    with pytest.raises(UserError, match=r"task\.data\.path=\S+: sample 2: its image cannot be read"):
        task.prompt(task.samples()[2], "llava")


def test_a_record_that_is_not_as_expected_fails_as_that_sample(tmp_path: Path) -> None:
    records = [dict(record) for record in RELEASES["pope"].records]
    records[1]["answer"], records[2]["question"] = "perhaps", None
    write_parquet(replace(RELEASES["pope"], records=records), tmp_path / "d")
    task = task_of("pope", tmp_path / "d", "parquet")
    assert len(task.samples()) == len(records)
    task.prompt(task.samples()[0], "llava")
    for row, reason in ((1, "neither yes nor no"), (2, "AttributeError")):
        with pytest.raises(UserError, match=rf"sample \d-{row}: its columns are not as expected.*{reason}"):
            task.prompt(task.samples()[row], "llava")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    release = RELEASES["pope"]
    types = {name: kind for name, kind in release.types.items() if name != "answer"}
    write_parquet(replace(release, types=types), tmp_path / "d")
    with pytest.raises(UserError, match=r"the column 'answer' is missing \(there: id, question_id, question"):
        task_of("pope", tmp_path / "d", "parquet").samples()


@pytest.mark.parametrize("name", ["vqav2", "textvqa"])
def test_a_question_without_ten_answers_fails_as_that_sample(name: str, tmp_path: Path) -> None:
    records = [dict(record) for record in RELEASES[name].records]
    records[1]["answers"] = records[1]["answers"][:9]
    write_parquet(replace(RELEASES[name], records=records), tmp_path / "d")
    task = task_of(name, tmp_path / "d", "parquet")
    task.prompt(task.samples()[0], "llava")
    with pytest.raises(UserError, match="9 answers instead of 10"):
        task.prompt(task.samples()[1], "llava")


def test_a_part_of_the_files_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    task = task_of("pope", tmp_path / "d", "parquet")
    (tmp_path / "d" / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"test-00000-of-00002\.parquet is missing, one of 2 files"):
        task.samples()
    one = task_of("pope", tmp_path / "d", "parquet", f"data.path={tmp_path}/d/test-00001-of-00002.parquet")
    assert len(one.samples()) == 3


def test_another_splits_data_do_not_pass_for_it(tmp_path: Path) -> None:
    task_of("textvqa", tmp_path / "d", "parquet")
    file = f"data.path={tmp_path}/d/validation-00000-of-00002.parquet"
    with pytest.raises(UserError, match="is of split 'validation', not of 'train'"):
        task_of("textvqa", tmp_path / "d", "parquet", file, "split=train").samples()
    task = task_of("textvqa", tmp_path / "d", "parquet", file, "split=train", "data.split=validation")
    assert len(task.samples()) == 2
    with pytest.raises(ConfigError, match=r"task\.split=train: task\.data\.source=original has validation"):
        task_of("textvqa", tmp_path / "o", "original", "split=train").samples()


def test_a_damaged_or_different_parquet_file_is_named(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    task = task_of("pope", tmp_path / "d", "parquet")
    path = tmp_path / "d" / "test-00001-of-00002.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(200) + whole[204:])
    with pytest.raises(UserError, match=r"test-00001-of-00002\.parquet: is no readable parquet file"):
        task.samples()
    path.write_bytes(whole)
    pq.write_table(pq.read_table(path).drop_columns(["answer"]), path)
    with pytest.raises(UserError, match=r"test-00001-of-00002\.parquet: lacks answer, which \S+00000-of"):
        task.samples()


@pytest.mark.parametrize("name", ["nocaps", "vqav2"])
def test_an_id_that_is_there_twice_is_refused(name: str, tmp_path: Path) -> None:
    records = [dict(record) for record in RELEASES[name].records]
    key = "image_id" if name == "nocaps" else "question_id"
    records[2][key] = records[1][key]
    write_parquet(replace(RELEASES[name], records=records), tmp_path / "d")
    with pytest.raises(UserError, match=rf"the sample '{records[1][key]}' is there 2 times"):
        task_of(name, tmp_path / "d", "parquet").samples()


def test_a_question_of_textvqa_that_is_there_twice_stays_two(tmp_path: Path) -> None:
    task = task_of("textvqa", tmp_path / "d", "original")
    lines = (tmp_path / "d" / "llava_textvqa_val_v051_ocr.jsonl").read_text().splitlines()
    (tmp_path / "d" / "llava_textvqa_val_v051_ocr.jsonl").write_text("\n".join([lines[0], *lines]))
    path = tmp_path / "d" / "TextVQA_0.5.1_val.json"
    data = json.loads(path.read_text())["data"]
    [first] = [item for item in data if item["question_id"] == 30]
    path.write_text(json.dumps({"data": [*data, {**first, "question_id": 99}]}))
    assert [sample.id for sample in task.samples()] == ["30", "99", "31", "32", "33"]


@pytest.mark.parametrize("name", RELEASES)
def test_a_folder_of_images_elsewhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known to be missing before a model is loaded, but not needed to score saved answers."""
    from himap.judge.client import Judge

    monkeypatch.setattr(Judge, "__init__", lambda self, config: None)
    task = task_of(name, tmp_path / "d", "original")
    task.check()
    moved = task_of(name, tmp_path / "d", "original", f"data.images={tmp_path / 'gone'}")
    assert len(moved.samples()) == len(task.samples())
    with pytest.raises(UserError, match=r"task\.data\.images=\S+gone: no such folder"):
        moved.check()
    with pytest.raises(UserError, match=r"task\.data\.images=\S+gone: sample .*its image cannot be read"):
        moved.prompt(moved.samples()[0], "llava")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("parquet", r"no parquet file of split 'test' \(there: none; set task\.data\.split"),
        ("disk", r"is no folder of save_to_disk with the split 'test'"),
        ("original", r"coco_pope_adversarial\.json cannot be read \(No such file"),
    ],
)
def test_a_folder_without_the_data_is_said_so(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"task\.data\.path=.*{message}"):
        task_of("pope", tmp_path, source).samples()


def test_files_that_are_no_data_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "test-0.parquet").write_text("no")
    with pytest.raises(UserError, match="is no readable parquet file"):
        task_of("pope", tmp_path, "parquet").samples()
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "coco_pope_adversarial.json").write_text("{")
    with pytest.raises(UserError, match=r"coco_pope_adversarial\.json is not one JSON object a line"):
        task_of("pope", tmp_path, "original").samples()


def test_a_hub_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(
        UserError, match=r"task\.data\.source=hub: nobody/nothing: .*task\.data\.source=parquet"
    ):
        load(configured("pope", "data.ids=[nobody/nothing]")).samples()


def test_what_was_downloaded_serves_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    # The hub's cache: only the second name was had.
    kept = tmp_path / "cache" / "datasets--lmms-lab--POPE"
    write_parquet(RELEASES["pope"], kept / "snapshots" / "c0ffee" / "data")
    (kept / "snapshots" / "c0ffee" / "README.md").write_text("")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("c0ffee")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    task = load(configured("pope"))
    assert len(task.samples()) == 6
    assert task.score(task.samples(), ["yes"] * 6).notes == ("data: lmms-lab/POPE@c0ffee",)
    (kept / "snapshots" / "c0ffee" / "data" / "test-00001-of-00002.parquet").unlink()
    with pytest.raises(
        UserError, match=r"lmms-lab/POPE: the hub cannot be reached.*00001-of-00002\S+ is missing"
    ):
        load(configured("pope")).samples()


def test_the_note_says_which_data_the_hub_gave(tmp_path: Path) -> None:
    task = task_of("aokvqa", tmp_path / "d", "hub")
    score = task.score(task.samples(), ["A"] * 4)
    assert score.notes[0].startswith(f"data: {tmp_path}/d@")


def test_llavas_own_scienceqa_file_gives_the_released_questions(tmp_path: Path) -> None:
    task = task_of("scienceqa", tmp_path / "d", "original")
    expected = [(task.text(s, "llava"), s.answer, s.choices) for s in task.samples()]
    items = [
        {"id": s.id, "image": f"{s.id}/image.png",
         "conversations": [{"from": "human", "value": f"<image>\n{task.text(s, 'llava')}"},
                           {"from": "gpt", "value": f"The answer is {s.answer}."}]}
        for s in task.samples()
    ]  # fmt: skip
    (tmp_path / "d" / "problems.json").unlink()
    write_json(tmp_path / "d" / "llava_test_CQM-A.json", [*items, {"id": "9", "conversations": []}])
    again = task_of("scienceqa", tmp_path / "d", "original")
    assert [(again.text(s, "llava"), s.answer, s.choices) for s in again.samples()] == expected
    assert again.prompt(again.samples()[0], "llava").images[0].size == (16, 16)
