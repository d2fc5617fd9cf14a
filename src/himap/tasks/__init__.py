"""Benchmarks, one small file a family, behind one loader."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from himap.rules import one_of

if TYPE_CHECKING:
    from himap.config import TaskConfig
    from himap.tasks.base import Task

ADAPTERS = {
    "pope": "himap.tasks.pope:Pope",
    "scienceqa": "himap.tasks.scienceqa:ScienceQA",
    "aokvqa": "himap.tasks.aokvqa:AOkVqa",
    "vqav2": "himap.tasks.vqav2:VqaV2",
    "textvqa": "himap.tasks.textvqa:TextVqa",
    "mme": "himap.tasks.mme:Mme",
    "nocaps": "himap.tasks.captions:NoCaps",
    "llava_bench": "himap.tasks.llava_bench:LlavaBench",
    "mm_vet": "himap.tasks.mm_vet:MmVet",
    "flickr30k": "himap.tasks.captions:Flickr30k",
    "shapes_short": "himap.tasks.shapes:Short",
    "shapes_choice": "himap.tasks.shapes:Choice",
    "shapes_yesno": "himap.tasks.shapes:YesNo",
    "shapes_caption": "himap.tasks.shapes:Caption",
}
"""Adapter -> module:class; the class is built from a `TaskConfig`."""


def load(config: TaskConfig) -> Task:
    """Build the task that a configuration names.

    Raises:
        ConfigError: the adapter or one of its settings is unknown or out of range.
    """
    one_of("task.adapter", config.adapter, tuple(ADAPTERS))
    module, _, name = ADAPTERS[config.adapter].partition(":")
    task: Task = getattr(import_module(module), name)(config)
    return task
