"""What the judged benchmarks share: answers of some length, graded by a language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, TypeVar

from himap.errors import ConfigError, UserError
from himap.tasks.base import Generation, Sample
from himap.tasks.benchmark import Benchmark

if TYPE_CHECKING:
    from himap.config import TaskConfig
    from himap.judge.client import Judge, Request, Verdict

T = TypeVar("T")


class Judged(Benchmark):
    """A benchmark whose score comes from `task.judge`.

    Raises:
        ConfigError: no judge is configured.
    """

    GENERATION = Generation(max_new_tokens=1024)
    QWEN_GENERATION = None
    FORM: ClassVar = {}

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        if config.judge is None:
            raise ConfigError(f"task.judge=null: must be given for task={config.name}.")
        self.judging = config.judge

    def check(self) -> None:
        super().check()
        _ = self.judge  # its package and its key must be there

    def text(self, sample: Sample, family: str) -> str:
        return sample.question

    @cached_property
    def judge(self) -> Judge:
        from himap.judge.client import Judge

        return Judge(self.judging)

    def judged(
        self, questions: Sequence[Sequence[Request]], parse: Callable[[str], T | None], prompt: str
    ) -> tuple[list[T | None], list[str]]:
        """The judge's values, and the notes that a reader of the score needs.

        Args:
            questions: the requests for each sample and run.
            parse: of a reply.
            prompt: all fixed words of the requests, for the hash.

        Raises:
            UserError: the endpoint refuses, or nothing could be judged.
        """
        from himap.judge.prompt import short_hash

        verdicts = self.judge.ask_all(questions, parse)
        missing = [verdict for verdict in verdicts if verdict.value is None]
        if len(missing) == len(verdicts):
            raise UserError(f"task.judge.model={self.judging.model}: nothing was judged: {missing[0].reason}")
        return [verdict.value for verdict in verdicts], [
            *self.notes,
            *self._notes(verdicts, short_hash(prompt)),
        ]

    def _notes(self, verdicts: Sequence[Verdict[T]], hash: str) -> list[str]:
        models = Counter(verdict.model for verdict in verdicts if verdict.value is not None)
        named = ", ".join(f"{model} ({n})" for model, n in models.most_common())
        origin = "the user's prompt file" if self.judging.prompt else "himap's own wording of the prompt"
        notes = [f"judge: {named}, {origin}, sha256 {hash}", f"runs of the judge: {self.judging.runs}"]
        missing = [verdict.reason for verdict in verdicts if verdict.value is None]
        return [
            *notes,
            f"unjudged: {len(missing)} of {len(verdicts)}" + (f" ({missing[0]})" if missing else ""),
        ]


def means_of_runs(values: Sequence[float | None], runs: int) -> list[float | None]:
    """The mean over the runs that gave a value, for each sample; runs of a sample lie side by side."""
    grouped = [values[start : start + runs] for start in range(0, len(values), runs)]
    found = [[value for value in group if value is not None] for group in grouped]
    return [fmean(group) if group else None for group in found]
