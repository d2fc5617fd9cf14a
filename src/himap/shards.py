"""One evaluation cut into shares for several workers, and joined to the result that one worker would have.

Each share writes its answers below the run's folder, `shards/2-of-8/answers.jsonl`. A sample that any of them
has answered is not asked again, so that a run may go on with another number of workers. The share that ends
last joins all answers to the run's own answers.jsonl and scores them there.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.answers import Answers, Row, read_answers
from himap.batches import Failures
from himap.errors import ConfigError
from himap.progress import Bar, Quiet
from himap.result import Result, digest
from himap.reuse import Reuse
from himap.strategy import Strategy

if TYPE_CHECKING:
    from himap.models.base import Model
    from himap.tasks.base import Sample, Task


@dataclass(frozen=True)
class Shard:
    """A share of a task's samples, the one numbered `index` (from 1) of `n`."""

    index: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A share from its written form, `2/8`.

        Raises:
            ConfigError: it has another form, or there is no such share.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(
                f"shard={text}: must be a number and how many there are, from 1/8 to 8/8 (for a Slurm array "
                "--array=1-8 and shard=$SLURM_ARRAY_TASK_ID/8)."
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.n}"

    def of(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """The share's samples; those of one picture stay together, for they share work."""
        sizes = Counter(sample.about for sample in samples)
        loads = [(0, index) for index in range(1, self.n + 1)]
        owners: dict[tuple[str, str], int] = {}
        for picture, size in sizes.items():
            load, owners[picture] = heapq.heappop(loads)
            heapq.heappush(loads, (load + size, owners[picture]))
        return [sample for sample in samples if owners[sample.about] == self.index]

    def folder(self, run: Path) -> Path:
        """Where the share writes, below the run's folder."""
        return run / "shards" / f"{self.index}-of-{self.n}"


def rows_so_far(run: Path, identity: Mapping[str, Any]) -> dict[str, Row]:
    """What all workers of a run have written by now, by the sample's id.

    Raises:
        UserError: some of it was made with other settings.
    """
    rows: dict[str, Row] = {}
    for path in _files(run):
        for sample, row in read_answers(path, identity).items():
            # A sample that failed in one place may have been answered in another.
            if sample not in rows or rows[sample]["error"] is not None:
                rows[sample] = row
    return rows


def _files(run: Path) -> Iterator[Path]:
    yield run / "answers.jsonl"
    yield from sorted((run / "shards").glob("*-of-*/answers.jsonl"))


def open_samples(shard: Shard, task: Task, run: Path, identity: Mapping[str, Any]) -> list[Sample]:
    """Those of the share that nobody has answered.

    Raises:
        UserError: answers that lie there were made with other settings.
    """
    from himap.evaluate import check_ids

    samples = task.samples()
    check_ids(task, samples)
    rows = rows_so_far(run, identity)
    return [s for s in shard.of(samples) if s.id not in rows or rows[s.id]["error"] is not None]


def answer_share(
    model: Model,
    strategy: Strategy,
    task: Task,
    shard: Shard,
    run: Path,
    identity: Mapping[str, Any],
    *,
    batch_size: int,
    fail_on_bad_sample: bool,
    bar: Bar,
    reuse: Reuse,
) -> None:
    """Answer the open samples of a share; the arguments are those of `himap.evaluate.evaluate`.

    Raises:
        UserError: answers that lie there were made with other settings, or a sample failed.
    """
    from himap.evaluate import ask

    strategy.check_depth(model.text_config.num_hidden_layers)
    pending = {sample.id for sample in open_samples(shard, task, run, identity)}
    answers = Answers(shard.folder(run) / "answers.jsonl", identity)
    samples = [s for s in shard.of(task.samples()) if s.id in pending or s.id in answers.rows]
    ask(
        model,
        strategy,
        task,
        samples,
        answers,
        batch_size=batch_size,
        fail_on_bad_sample=fail_on_bad_sample,
        bar=bar,
        reuse=reuse,
    )


def gather(run: Path, identity: Mapping[str, Any]) -> None:
    """Bring what the shares have answered into the run's own answers, for one worker to go on with.

    Raises:
        UserError: some of it was made with other settings.
    """
    if (run / "shards").is_dir() and (rows := rows_so_far(run, identity)):
        Answers.joined(run / "answers.jsonl", identity, rows).finish(list(rows), {})


def join(
    model: Model,
    strategy: Strategy,
    task: Task,
    run: Path,
    identity: Mapping[str, Any],
    *,
    fail_on_bad_sample: bool,
) -> Result:
    """The result of all shares; each sample has been asked.

    The caller holds the folder `shards` against other workers that have ended just now.

    Raises:
        UserError: answers were made with other settings, or a sample failed.
    """
    from himap.conclude import conclude

    samples = task.samples()
    rows = rows_so_far(run, identity)
    rows = {sample.id: rows[sample.id] for sample in samples}
    Failures(task.name, fail_on_bad_sample, Quiet()).report(list(rows.values()))
    answers = Answers.joined(run / "answers.jsonl", identity, rows)
    return conclude(model, strategy, task, samples, answers, identity, samples_per_second=None)


def joined(run: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the run's result holds all that its shares have answered."""
    path = run / "result.json"
    if not path.exists() or Result.load(path).config_sha256 != digest(identity):
        return False
    own = read_answers(run / "answers.jsonl", identity)
    rows = rows_so_far(run, identity)
    return {name: row["error"] for name, row in own.items()} == {
        name: row["error"] for name, row in rows.items()
    }
