"""The same samples come from every source, and what is wrong with the data is said by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from himap.config import TaskConfig
from himap.paths import conf_dir
from himap.tasks import load
from himap.tasks.base import Task
from tests.tasks.releases import RELEASES, write_disk, write_hub, write_parquet

SOURCES = ("parquet", "disk", "hub", "original")


def task_of(name: str, folder: Path, source: str, *overrides: str) -> Task:
    """A task on its fixture, configured by its YAML."""
    release = RELEASES[name]
    write = {"parquet": write_parquet, "disk": write_disk, "hub": write_hub}.get(source)
    if not folder.exists():
        write(release, folder) if write else release.original(folder)
    where = [f"task.data.path={folder}"]
    if source == "hub":
        # A folder in the hub's form stands for the hub; the first name is not to be had.
        where = [f"task.data.ids=[nobody/nothing,{folder}]", "task.data.name=null"]
    return configured(name, f"task.data.source={source}", *where, *overrides)


def configured(name: str, *overrides: str) -> Task:
    """The task of conf/task/<name>.yaml, changed as on the command line."""
    given = OmegaConf.load(conf_dir() / "task" / f"{name}.yaml")
    changes = OmegaConf.from_dotlist([override.removeprefix("task.") for override in overrides])
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TaskConfig), given, changes))
    return load(config)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


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
