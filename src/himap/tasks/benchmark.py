"""What the published benchmarks share: data sources, options, limits, and errors that name the sample."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from himap.errors import ConfigError, UserError
from himap.rules import one_of, unknown
from himap.tasks.base import Generation, Prompt, Sample, Task
from himap.tasks.data import Data
from himap.tasks.hub import open_hub
from himap.tasks.images import decode, refuse
from himap.tasks.records import BROKEN, Record
from himap.tasks.rows import ParquetRows, Rows, is_of, open_disk, parquet_files

if TYPE_CHECKING:
    from himap.config import TaskConfig

SHORT = "\nAnswer the question using a single word or phrase."
"""LLaVA's request after every question with a short answer."""

# Qwen-VL-Chat's official evaluation of short answers completes this, outside of any conversation.
QWEN = "qwen_vl_chat"
QWEN_SHORT = Generation(max_new_tokens=10, min_new_tokens=1)


class Benchmark(Task):
    """A published benchmark; a subclass names its columns and turns a record into a sample.

    Raises:
        ConfigError: a split, an option or a data setting does not exist.
    """

    SPLITS: tuple[str, ...] = ()
    """The splits that there are; empty leaves it to the data."""
    HUB_SPLITS: ClassVar[Mapping[str, str]] = {}
    """The hub's name of a split where it has another."""
    COLUMNS: tuple[str, ...]
    """Columns that must be there, without the image."""
    PICTURE: ClassVar[str] = ""
    """Column that tells images apart, where a benchmark asks several questions about one."""
    OPTIONS: ClassVar[Mapping[str, Sequence[str] | type]] = {}
    """Option -> its values, or its type; the defaults stand in the YAML."""
    GENERATION = Generation(max_new_tokens=128)
    QWEN_GENERATION: Generation | None = QWEN_SHORT
    FORM: ClassVar[Mapping[str, str]] = {QWEN: "raw"}
    """Family -> form of the prompt; `chat` where nothing is said."""

    def __init__(self, config: TaskConfig) -> None:
        if self.SPLITS:
            one_of("task.split", config.split, self.SPLITS)
        self.name, self.split, self.limit = config.name, config.split, config.limit
        self.options = check_options(config.options, self.OPTIONS)
        self.data = Data.parse(config.data)
        self._changes = config.generation.changes()
        self.generation = self.generation_for("")
        self.notes: list[str] = []
        self._images: Path | None = None

    # What a benchmark says of itself

    @abstractmethod
    def sample(self, record: Record, row: int) -> Sample | None:
        """A record of the hub's columns as a sample without image; None leaves it out of the benchmark."""

    def original(self, root: Path) -> Iterator[tuple[Sample, Path]]:
        """Samples and the paths of their images from the released files in the folder `root`."""
        raise ConfigError(f"task.data.source=original: not available for task={self.name}.")

    # What is the same for all

    def check(self) -> None:
        self.samples()
        if self._images is not None and not self._images.is_dir():
            raise UserError(
                f"task.data.images={self._images}: no such folder (name the one with the images)."
            )

    def images_in(self, usual: Path) -> Path:
        """The folder of the original images: `task.data.images`, else the usual one."""
        self._images = Path(self.data.images).expanduser() if self.data.images else usual
        return self._images

    def generation_for(self, family: str) -> Generation:
        qwen = self.QWEN_GENERATION if family == QWEN else None
        chosen = replace(qwen or self.GENERATION, **self._changes)
        # A longest answer below the protocol's shortest one shortens that, too.
        return replace(chosen, min_new_tokens=min(chosen.min_new_tokens, chosen.max_new_tokens))

    def prompt(self, sample: Sample, family: str) -> Prompt:
        images = tuple(load() for load in sample.images)
        return Prompt(self.text(sample, family), images, form=self.FORM.get(family, "chat"))

    def samples(self) -> Sequence[Sample]:
        return self._samples

    @cached_property
    def _samples(self) -> list[Sample]:
        if self.data.source == "original":
            root = Path(self.data.path).expanduser()
            if not root.is_dir():
                raise UserError(f"task.data.path={root}: no such folder.")
            found = take(self._original(root), self.limit)
        else:
            found = take(self._read(self._open()), self.limit)
        if not found:
            raise UserError(
                f"{self.data.key}: no sample for task.split={self.split} task.limit={self.limit}."
            )
        id, n = Counter(sample.id for sample in found).most_common(1)[0]
        if n > 1:
            # Answers are kept by the sample's id.
            raise UserError(f"{self.data.key}: the sample {id!r} is there {n} times (take the others out).")
        return found

    def _original(self, root: Path) -> Iterator[Sample]:
        try:
            for sample, path in self.original(root):
                yield self._pictured(sample, partial(_existing, path), str(path))
        except OSError as error:
            raise UserError(
                f"{self.data.key}: {error.filename} cannot be read ({error.strerror})."
            ) from error
        except BROKEN as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.data.key}: the released files are not as expected ({reason}).") from error

    def _open(self) -> Rows:
        split = self.data.split or self.HUB_SPLITS.get(self.split, self.split)
        path = Path(self.data.path).expanduser()
        if self.data.source == "hub":
            rows, state = open_hub(self.data.ids, self.data.name, split, self.data.revision)
            self.notes.append(f"data: {state}")
            return rows
        if self.data.source == "disk":
            return open_disk(path, split)
        others = {self.HUB_SPLITS.get(name, name) for name in self.SPLITS} - {split}
        if path.is_file() and (named := [other for other in others if is_of(path, other)]):
            raise UserError(
                f"task.data.path={path}: is of split {named[0]!r}, not of {split!r} (give the folder, or set "
                "task.split or task.data.split)."
            )
        return ParquetRows(parquet_files(path, self.data.name, split))

    def _read(self, rows: Rows) -> Iterator[Sample]:
        for column in (*self.COLUMNS, "image"):
            if column not in rows.columns:
                raise UserError(
                    f"{self.data.key}: the column {column!r} is missing (there: {', '.join(rows.columns)})."
                )
        told = (self.PICTURE,) if self.PICTURE in rows.columns else ()
        for row, record in enumerate(rows.records(tuple(dict.fromkeys((*self.COLUMNS, *told))))):
            try:
                sample = self.sample(record, row)
            except BROKEN as error:
                yield self._broken(f"{record.get('question_id', 'row')}-{row}", error)
                continue
            if sample is not None:
                picture = str(record[self.PICTURE]) if told else ""
                yield self._pictured(sample, partial(rows.cell, row, "image"), picture)

    def _pictured(self, sample: Sample, fetch: Callable[[], Any], picture: str) -> Sample:
        key = f"task.data.images={self.data.images}" if self.data.images else self.data.key
        load = partial(decode, fetch, sample.id, key)
        return replace(sample, images=(load,), picture=picture)

    def _broken(self, name: str, cause: Exception) -> Sample:
        """A sample that fails when it is asked, so that `task.on_bad_sample` decides about it."""
        reason = f"its columns are not as expected ({type(cause).__name__}: {cause})"
        error = f"{self.data.key}: sample {name}: {reason}"
        # A group of its own: where the first sample is broken, a limit still goes by groups.
        return Sample(name, "", (partial(refuse, error),), group=name, question_id=name, error=error)


def take(samples: Iterator[Sample], limit: int | None) -> list[Sample]:
    """The first `limit` samples, fewer where the last group would not be whole.

    Raises:
        ConfigError: the first group is larger than the limit.
    """
    if limit is None:
        return list(samples)
    first = next(samples, None)
    if first is None:
        return []
    if not first.group:
        return [first, *islice(samples, limit - 1)]
    groups: dict[str, list[Sample]] = {first.group: [first]}
    for sample in samples:
        groups.setdefault(sample.group or sample.id, []).append(sample)
    taken: list[Sample] = []
    for group in groups.values():
        if len(taken) + len(group) > limit:
            break
        taken += group
    if not taken:
        n = len(groups[first.group])
        raise ConfigError(
            f"task.limit={limit}: must be at least {n} (the samples of one image stay together)."
        )
    return taken


def check_options(given: Mapping[str, Any], known: Mapping[str, Sequence[str] | type]) -> dict[str, Any]:
    """The options of a task, checked.

    Raises:
        ConfigError: an unknown option, a missing one, a value that does not exist or is of another type.
    """
    for key in given:
        if key not in known:
            raise (
                unknown("task.options", key, tuple(known))
                if known
                else ConfigError(f"task.options.{key}: this task has no options.")
            )
    for key, values in known.items():
        if key not in given:
            raise ConfigError(f"task.options.{key}: must be given.")
        if not isinstance(values, type):
            one_of(f"task.options.{key}", str(given[key]), values)
        elif not isinstance(given[key], values):
            words = {bool: "true or false", str: "a text"}
            raise ConfigError(f"task.options.{key}={given[key]}: must be {words[values]}.")
    return dict(given)


def _existing(path: Path) -> Path:
    return path
