"""Which language model grades free-form answers, and how it is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from himap.errors import ConfigError
from himap.rules import at_least


@dataclass
class JudgeConfig:
    """A judge behind an OpenAI-compatible endpoint; its key comes from the environment and from nowhere else.

    Attributes:
        model: the name that the endpoint knows.
        base_url: the endpoint; null takes OpenAI's.
        key_variable: the environment variable that holds the key; endpoints of one's own often need none.
        prompt: the user's copy of the released file with the official prompt; null takes himap's own wording.
        request: fields of the request that take the protocol's place, null leaving one out; for models that
            know no `max_tokens`: {max_tokens: null, max_completion_tokens: 2000, temperature: null}.
        runs: how often every answer is graded; the score is the mean.
        concurrency: requests at once.
        retries: how often a request that failed (busy, broken, no connection) is sent again.
        backoff_s: wait before the first of them; doubled each time, at most 60 s.
        timeout_s: of one request.
        attempts: how often an answer that cannot be parsed is asked for before it counts as unjudged.
        cache: folder of the replies, so that a second run costs nothing; null keeps none.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    prompt: str | None = None
    request: dict[str, Any] = field(default_factory=dict)
    runs: int = 1
    concurrency: int = 8
    retries: int = 6
    backoff_s: float = 1.0
    timeout_s: float = 60.0
    attempts: int = 5
    cache: str | None = "outputs/judge"

    def __post_init__(self) -> None:
        for key in ("runs", "concurrency", "attempts"):
            at_least(f"task.judge.{key}", getattr(self, key), 1)
        for key in ("retries", "backoff_s"):
            at_least(f"task.judge.{key}", getattr(self, key), 0)
        for key in ("model", "messages", "n", "stream"):
            if key in self.request:
                raise ConfigError(f"task.judge.request.{key}: cannot be set (himap needs it as it is).")
        if not self.timeout_s > 0:
            raise ConfigError(f"task.judge.timeout_s={self.timeout_s}: must be above 0.")
        if self.base_url is not None and "@" in self.base_url:
            raise ConfigError(
                "task.judge.base_url: must not carry a password (put the key into the environment variable "
                f"{self.key_variable})."
            )
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"task.judge.base_url={self.base_url}: must begin with http:// or https:// (mostly it ends "
                "with /v1)."
            )

    def identity(self) -> dict[str, Any]:
        """The part that changes a grade."""
        return {key: asdict(self)[key] for key in ("model", "prompt", "request", "runs", "attempts")}
