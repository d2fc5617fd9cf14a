"""The evaluator of a real sweep: model and tasks loaded once for all groups of strategies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from himap.config import HardwareConfig, ModelConfig, PruningConfig, StageConfig, TaskConfig, identity
from himap.errors import ConfigError, UserError
from himap.progress import Bar, Quiet
from himap.reuse import Reuse
from himap.search.evaluator import Job, Reply
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Task


class ModelEvaluator:
    """Evaluates strategies on one model and one task; loads each of them once.

    Args:
        task: the task; its `split` and `limit` hold for that split.
        heldout_limit: samples of any other split; None takes all.
        bar: told about failing samples and full memory.
    """

    def __init__(
        self,
        model: ModelConfig,
        task: TaskConfig,
        hardware: HardwareConfig,
        heldout_limit: int | None,
        bar: Bar | None = None,
    ) -> None:
        self._model_config = model
        self._task_config = task
        self._hardware = hardware
        self._heldout_limit = heldout_limit
        self._bar = bar
        self._reuse = Reuse(0)
        self._weights: str | None = None
        self._model: Model | None = None
        self._tasks: dict[str, Task] = {}

    def __call__(self, jobs: Sequence[Job], split: str, advance: Callable[[float], None]) -> list[Reply]:
        """Reply to each job; answers grow in its folder, so that an interrupted evaluation goes on."""
        from himap.together import Request, evaluate_together

        config = self._task_of(split)
        model = self._loaded()
        requests = [
            Request(
                job.strategy,
                job.folder / "answers.jsonl",
                self._identity(job.strategy, config),
            )
            for job in jobs
        ]
        results = evaluate_together(
            model,
            requests,
            self._tasks[split],
            batch_size=self._hardware.batch_size,
            fail_on_bad_sample=config.on_bad_sample == "fail",
            bar=_Share(advance, self._bar),
            reuse=self._reuse,
        )
        return [result if isinstance(result, Exception) else result.to_dict() for result in results]

    def load(self, splits: Sequence[str]) -> None:
        """Load tasks and model now, so that what is wrong with them is known before anything is written.

        Raises:
            UserError: a split is unknown, or data or weights are missing.
        """
        for split in splits:
            try:
                self._task_of(split)
            except ConfigError as error:
                key = "task.split" if split == self._task_config.split else "search.heldout_split"
                raise ConfigError(str(error).replace("task.split", key)) from error
            if not self._tasks[split].is_scored:
                raise ConfigError(
                    f"task.split={split}: its ground truth is on a server, so nothing tells trials apart "
                    "(search on a split that is scored here)."
                )
            self._tasks[split].check()
        self._refuse_shared(splits)
        self._loaded()

    def _refuse_shared(self, splits: Sequence[str]) -> None:
        """The front is checked on other samples; a path to one file may give the same for every split."""
        searched = self._task_config.split
        known = {sample.id for sample in self._tasks[searched].samples()}
        for split in splits:
            shared = [sample.id for sample in self._tasks[split].samples() if sample.id in known]
            if split != searched and shared:
                raise UserError(
                    f"search.heldout_split={split}: {len(shared)} of its samples are in task.split={searched}"
                    f", too, {shared[0]} first (is task.data.path one file for both?)."
                )

    def _identity(self, strategy: Strategy, task: TaskConfig) -> dict[str, Any]:
        same = identity(self._model_config, configured(strategy), task, self._hardware)
        return same if self._weights is None else {**same, "weights": self._weights}

    def _loaded(self) -> Model:
        if self._model is None:
            from himap import models
            from himap.features import open_cache
            from himap.hardware import prepare
            from himap.models.fingerprint import fingerprint

            prepare(self._hardware)
            self._weights = fingerprint(self._model_config)
            cache = open_cache(self._model_config, self._hardware, self._weights)
            self._reuse = Reuse(self._hardware.reuse_mib, cache)
            self._model = models.load(self._model_config, self._hardware)
        return self._model

    def _task_of(self, split: str) -> TaskConfig:
        from himap import tasks

        config = self._task_config
        if split != config.split:
            config = replace(config, split=split, limit=self._heldout_limit)
        if split not in self._tasks:
            self._tasks[split] = tasks.load(config)
        return config


class _Share:
    """Tells a caller the share that is done; messages go to a bar."""

    def __init__(self, advance: Callable[[float], None], bar: Bar | None) -> None:
        self._advance, self._bar = advance, bar or Quiet()
        self._total, self._done = 1, 0

    def begin(self, total: int, done: int = 0) -> None:
        self._total, self._done = max(total, 1), done

    def advance(self, n: int = 1, note: str = "") -> None:
        self._done += n
        self._advance(self._done / self._total)

    def say(self, text: str) -> None:
        self._bar.say(text)

    def end(self) -> None:
        pass


def configured(strategy: Strategy) -> PruningConfig:
    """The configuration that describes a strategy."""
    stages = {}
    for stage in strategy.stages:
        values = asdict(stage)
        name = values.pop("name")
        stages[name] = StageConfig(**values)
    return PruningConfig(strategy.name, stages)
