"""Ask the judge: many requests at once, retried with back-off, every usable reply kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

from himap.config.judge import JudgeConfig
from himap.errors import UserError
from himap.files import write_json
from himap.progress import Lines

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_WAIT_S = 60.0
# Without it the package would ask the environment, and no config.yaml would say so.
_OPENAI = "https://api.openai.com/v1"
MISSING_EXTRA = "task.judge: the package openai is missing (pip install 'himap[judge]')."


@dataclass(frozen=True)
class Request:
    """What the judge is asked once.

    Attributes:
        user: the message.
        system: the system message; none where empty.
        temperature: of sampling.
        max_tokens: longest reply.
        run: number of the repetition, so that repetitions are not answered from the cache of another.
    """

    user: str
    system: str = ""
    temperature: float = 0.0
    max_tokens: int = 1024
    run: int = 0


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """A judgement.

    Attributes:
        value: what the reply was parsed to; None where the sample stays unjudged.
        reply: the text; empty where none came.
        model: the model as the endpoint named it.
        reason: why there is no value.
    """

    value: T | None
    reply: str
    model: str
    reason: str = ""


class Unanswered(Exception):
    """A request that failed as often as it may."""


class Judge:
    """A language model that grades.

    Args:
        config: endpoint, model, patience, cache.

    Raises:
        UserError: the package or the key is missing.
    """

    def __init__(self, config: JudgeConfig) -> None:
        try:
            import openai
        except ModuleNotFoundError as error:
            raise UserError(MISSING_EXTRA) from error
        key = os.environ.get(config.key_variable)
        if not key and config.base_url is None:
            raise UserError(
                f"{config.key_variable}: not set in the environment, and OpenAI's endpoint needs it (or set "
                "task.judge.base_url to an endpoint of your own)."
            )
        logging.getLogger("httpx").setLevel(logging.WARNING)  # or it says a line for every request
        self._openai = openai
        self._config = config
        self._key = key
        self._has_replied = False
        # Retries are ours, so that a reply that is no reply is retried like a busy server.
        self._client = openai.OpenAI(
            base_url=config.base_url or _OPENAI,
            api_key=key or "none",
            max_retries=0,
            timeout=config.timeout_s,
        )
        self._cache = Path(config.cache).expanduser() if config.cache else None

    def ask_all(
        self, questions: Sequence[Sequence[Request]], parse: Callable[[str], T | None]
    ) -> list[Verdict[T]]:
        """Judge many answers at once.

        Args:
            questions: for each, the requests of its attempts: the next is sent where `parse` gives None.
            parse: reply -> value, or None.

        Raises:
            UserError: the endpoint refuses (key, model, request), or gives no reply at all.
        """
        stop = Event()
        todo: SimpleQueue[int] = SimpleQueue()
        for index in range(len(questions)):
            todo.put(index)
        outcomes: SimpleQueue[tuple[int, Verdict[T] | Exception]] = SimpleQueue()

        def work() -> None:
            while not stop.is_set():
                try:
                    index = todo.get_nowait()
                except Empty:
                    return
                try:
                    outcomes.put((index, self._judge(questions[index], parse, stop)))
                except Exception as error:  # the caller raises it
                    outcomes.put((index, error))

        verdicts: dict[int, Verdict[T]] = {}
        lines = Lines(f"judge {self._config.model}")
        lines.begin(len(questions))
        try:
            # As daemons: Ctrl-C does not wait for a judge that takes its time.
            for _ in range(min(self._config.concurrency, len(questions))):
                Thread(target=work, daemon=True).start()
            while len(verdicts) < len(questions):
                index, outcome = outcomes.get()
                if isinstance(outcome, Exception):
                    raise outcome
                verdicts[index] = outcome
                lines.advance()
        finally:
            stop.set()
            lines.end()
        return [verdicts[index] for index in range(len(questions))]

    def _judge(
        self, attempts: Sequence[Request], parse: Callable[[str], T | None], stop: Event
    ) -> Verdict[T]:
        reply, model = "", ""
        # Kept once there is a grade: then a second run asks nothing, and an unjudged sample is asked anew.
        new: list[tuple[Path, dict[str, Any]]] = []
        for number, request in enumerate(attempts):
            path = self._path(request, number)
            kept = _kept(path)
            try:
                reply, model = kept if kept is not None else self._ask(request, stop)
            except Unanswered as error:
                if not self._has_replied:
                    raise UserError(
                        f"task.judge.base_url={self._config.base_url}: no reply ({error}); check the "
                        "address, then give the same command again (what the model answered is kept)."
                    ) from error
                return Verdict(None, "", "", str(error))
            self._has_replied = True
            value = parse(reply)
            if kept is None and path is not None:
                new.append((path, {"request": asdict(request), "model": model, "reply": reply}))
            if value is not None:
                for path, content in new:
                    write_json(path, content)
                return Verdict(value, reply, model)
        return Verdict(None, reply, model, f"no grade in the reply {reply[:80]!r}")

    def _path(self, request: Request, attempt: int) -> Path | None:
        if self._cache is None:
            return None
        config = self._config
        asked: dict[str, Any] = {"base_url": config.base_url, "model": config.model, "attempt": attempt}
        if config.request:
            asked["request"] = config.request
        text = json.dumps({**asked, **asdict(request)}, sort_keys=True)
        name = hashlib.sha256(text.encode("utf-8")).hexdigest()
        return self._cache / name[:2] / f"{name}.json"

    def _ask(self, request: Request, stop: Event) -> tuple[str, str]:
        """Reply and model's name, after as many tries as it takes.

        Raises:
            Unanswered: none came, or nobody waits for it any more.
            UserError: the endpoint refuses.
        """
        openai = self._openai
        reason = ""
        for retry in range(self._config.retries + 1):
            try:
                return _content(self._send(request))
            except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
                reason, wait = self._said(error), _retry_after(error)
            except openai.APIStatusError as error:
                if error.code == "content_filter":  # of this one answer; the next may pass
                    raise Unanswered(self._said(error)) from error
                if error.status_code not in (408, 409, 425):
                    raise UserError(
                        f"task.judge.model={self._config.model}: the endpoint refuses ({self._said(error)}); "
                        "check whether it has this model, task.judge.base_url, and the key in "
                        f"{self._config.key_variable}."
                    ) from error
                reason, wait = self._said(error), None
            # A body that is no JSON, or JSON without a message.
            except (ValueError, LookupError, AttributeError, TypeError, openai.APIError) as error:
                reason, wait = f"a reply without a message ({self._said(error)})", None
            if retry < self._config.retries and stop.wait(wait if wait is not None else self._wait(retry)):
                raise Unanswered("interrupted")
        raise Unanswered(f"{self._config.retries + 1} requests failed; the last: {reason}")

    def _send(self, request: Request) -> Any:
        messages: list[Any] = [{"role": "user", "content": request.user}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        protocol = {"temperature": request.temperature, "max_tokens": request.max_tokens}
        fields = {**protocol, **self._config.request}
        return self._client.chat.completions.create(
            model=self._config.model,
            messages=messages,
            extra_body={name: value for name, value in fields.items() if value is not None},
        )

    def _wait(self, retry: int) -> float:
        # Spread, so that requests that were refused together do not come back together.
        return min(_LONGEST_WAIT_S, self._config.backoff_s * 2**retry) * random.uniform(0.5, 1.0)

    def _said(self, error: Exception) -> str:
        """What went wrong, in one short line; a server may repeat the key that it refuses."""
        text = " ".join(str(error).split())
        if self._key:
            text = text.replace(self._key, "***")
        return text[:200] or type(error).__name__


def _content(completion: Any) -> tuple[str, str]:
    text = completion.choices[0].message.content
    if not isinstance(text, str):
        raise ValueError("no text")
    return text, str(completion.model)


def _kept(path: Path | None) -> tuple[str, str] | None:
    if path is None or not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["reply"], content["model"]
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s cannot be read; the judge is asked again", path)
        return None


def _retry_after(error: Any) -> float | None:
    """Seconds that the server asks to wait, at most `_LONGEST_WAIT_S`."""
    response: Any = getattr(error, "response", None)
    try:
        return min(_LONGEST_WAIT_S, max(0.0, float(response.headers["retry-after"])))
    except (AttributeError, KeyError, ValueError):
        return None
