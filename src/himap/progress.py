"""How far a long run is: a bar with an estimate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol

_SECONDS_BETWEEN_LINES = 15.0


class Bar(Protocol):
    """What a long run tells about itself."""

    def begin(self, total: int, done: int = 0) -> None:
        """Start with `done` of `total` steps behind us."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """`n` steps are done; `note` replaces the text behind the bar."""

    def say(self, text: str) -> None:
        """A message that stays."""

    def end(self) -> None:
        """No step will follow."""


class Quiet:
    """Says nothing but messages, and those to standard error."""

    def begin(self, total: int, done: int = 0) -> None:
        pass

    def advance(self, n: int = 1, note: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        pass


class Lines(Quiet):
    """A line at the start, every some seconds, and at the end: for log files and pipes."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._total = self._done = self._before = 0
        self._started = self._last = 0.0

    def begin(self, total: int, done: int = 0) -> None:
        self._total, self._done, self._before = total, done, done
        self._started = self._last = time.monotonic()
        already = f", {done} there already" if done else ""
        self.say(f"{self._title}: {total} to do{already}")

    def advance(self, n: int = 1, note: str = "") -> None:
        self._done += n
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES and self._done < self._total:
            self._last = now
            left = (now - self._started) / (self._done - self._before) * (self._total - self._done)
            text = f"{self._title}: {self._done}/{self._total}, about {duration(left)} left"
            self.say(f"{text}, {note}" if note else text)

    def end(self) -> None:
        spent = duration(time.monotonic() - self._started)
        self.say(f"{self._title}: {self._done}/{self._total} in {spent}")


class Rich:
    """A bar with an estimate, on a terminal."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._title = title
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )

    def begin(self, total: int, done: int = 0) -> None:
        self._task = self._progress.add_task(self._title, total=total, completed=done, note="")
        self._progress.start()

    def advance(self, n: int = 1, note: str = "") -> None:
        if note:
            self._progress.update(self._task, advance=n, note=note)
        else:
            self._progress.advance(self._task, n)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        self._progress.stop()


def bar(title: str) -> Bar:
    """A bar on a terminal, lines elsewhere; both on standard error."""
    return Rich(title) if sys.stderr.isatty() else Lines(title)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
