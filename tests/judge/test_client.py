"""The judge against a real server that is busy, broken, slow or talks nonsense."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from himap.config import JudgeConfig
from himap.errors import ConfigError, UserError
from himap.judge.client import Judge, Request
from tests.judge.endpoint import MODEL, Reply, endpoint

QUICK = JudgeConfig(
    model="judge", retries=3, backoff_s=0.01, timeout_s=5, attempts=3, cache=None, concurrency=4
)


def number(reply: str) -> float | None:
    return float(reply) if reply.isdigit() else None


def ask(config: JudgeConfig, *texts: str) -> list[Any]:
    questions = [[Request(text, system="be fair", max_tokens=3)] * config.attempts for text in texts]
    return Judge(config).ask_all(questions, number)


@pytest.mark.parametrize(
    "bad",
    [
        Reply(status=429, body="{}"),
        Reply(status=429, body="{}", headers={"retry-after": "0.05"}),
        Reply(status=500, body="oops"),
        Reply(status=503, body=""),
        Reply(body="<html>"),
        Reply(body='{"model": "m"}'),
        Reply(body='{"model": "m", "choices": []}'),
        Reply(body="[1, 2]"),
        Reply(text="7", wait_s=0.8),
    ],
    ids=[
        "429",
        "429-retry-after",
        "500",
        "503",
        "no-json",
        "no-choices",
        "empty-choices",
        "a-list",
        "too-slow",
    ],
)
def test_a_bad_reply_is_asked_again(bad: Reply) -> None:
    with endpoint(lambda _, n: bad if n == 0 else Reply("7")) as server:
        config = replace(QUICK, base_url=server.url, timeout_s=0.4)
        [verdict] = ask(config, "what?")
    assert (verdict.value, verdict.model) == (7.0, MODEL)
    assert len(server.requests) == 2
    assert server.requests[0] == {
        "model": "judge", "temperature": 0.0, "max_tokens": 3,
        "messages": [{"role": "system", "content": "be fair"}, {"role": "user", "content": "what?"}],
    }  # fmt: skip


def test_the_wait_that_the_server_asks_for_is_kept() -> None:
    busy = Reply(status=429, body="{}", headers={"retry-after": "0.3"})
    with endpoint(lambda _, n: busy if n == 0 else Reply("7")) as server:
        started = time.perf_counter()
        ask(replace(QUICK, base_url=server.url), "what?")
        assert time.perf_counter() - started >= 0.3


def test_a_server_that_never_recovers_leaves_the_sample_unjudged() -> None:
    with endpoint(
        lambda request, _: Reply("7") if "good" in str(request) else Reply(status=500, body="")
    ) as server:
        good, bad = ask(replace(QUICK, base_url=server.url, concurrency=1), "good", "bad")
    assert (bad.value, good.value) == (None, 7.0)
    assert "4 requests failed" in bad.reason
    assert len(server.requests) == 5


@pytest.mark.parametrize("status", [429, 500, None], ids=["429", "500", "nobody"])
def test_an_endpoint_without_any_reply_ends_the_run_early(status: int | None) -> None:
    with endpoint(lambda *_: Reply(status=status or 200, body="")) as server:
        url = server.url if status else "http://127.0.0.1:9/v1"
        with pytest.raises(UserError, match=r"task\.judge\.base_url=\S+: no reply \(4 requests failed"):
            ask(replace(QUICK, base_url=url, concurrency=2), *map(str, range(40)))
    assert len(server.requests) <= 2 * 4 + 2


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """A test run in the background of a shell inherits an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_does_not_wait_for_the_judge(tmp_path: Path) -> None:
    """What was judged before is kept, and the next run asks the rest."""
    slow = [True]

    def answer(request: dict[str, Any], _: int) -> Reply:
        return Reply("7", wait_s=3.0 if slow[0] and "slow" in str(request) else 0.0)

    with endpoint(answer) as server:
        config = replace(QUICK, base_url=server.url, cache=str(tmp_path), concurrency=2)
        Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            ask(config, "a", "slow", "b", "slow too", "c")
        assert time.perf_counter() - started < 2
        slow[0] = False
        n_asked = len(server.requests)
        assert len(ask(config, "a", "slow", "b", "slow too", "c")) == 5
    again = [request["messages"][-1]["content"] for request in server.requests[n_asked:]]
    assert sorted(again) == ["c", "slow", "slow too"]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_waits_between_tries() -> None:
    with endpoint(lambda *_: Reply(status=429, body="")) as server:
        config = replace(QUICK, base_url=server.url, backoff_s=1.0, concurrency=1)
        Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            ask(config, "a")
        time.sleep(1.0)
        assert len(server.requests) == 1


def test_a_key_that_the_server_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    body = '{"error": {"message": "wrong key sk-secret"}}'
    with endpoint(lambda *_: Reply(status=401, body=body)) as server, pytest.raises(UserError) as error:
        ask(replace(QUICK, base_url=server.url, key_variable="MY_KEY"), "a")
    assert "wrong key ***" in str(error.value)
    assert "sk-secret" not in str(error.value)


def test_a_reply_without_a_grade_is_asked_again_then_unjudged() -> None:
    with endpoint(
        lambda request, n: Reply("7" if "late" in str(request) and n == 1 else "I like it")
    ) as server:
        late, never = ask(replace(QUICK, base_url=server.url), "late", "never")
    assert (late.value, never.value) == (7.0, None)
    assert "no grade in the reply 'I like it'" in never.reason
    assert len(server.requests) == 2 + 3


def test_a_second_run_costs_nothing(tmp_path: Path) -> None:
    with endpoint(lambda _, n: Reply("7") if n else Reply("hm")) as server:
        config = replace(QUICK, base_url=server.url, cache=str(tmp_path))
        first = ask(config, "a", "b")
        n_asked = len(server.requests)
        assert ask(config, "a", "b") == first
        assert len(server.requests) == n_asked == 4
        ask(replace(config, model="other"), "a")
        assert len(server.requests) > n_asked


def test_an_unjudged_sample_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    with endpoint(lambda _, n: Reply("hm" if n < 3 else "7")) as server:
        config = replace(QUICK, base_url=server.url, cache=str(tmp_path))
        assert ask(config, "a")[0].value is None
        assert ask(config, "a")[0].value == 7.0


def test_a_broken_file_of_the_cache_is_asked_anew(tmp_path: Path) -> None:
    with endpoint(lambda *_: Reply("7")) as server:
        config = replace(QUICK, base_url=server.url, cache=str(tmp_path))
        ask(config, "a")
        [kept] = tmp_path.rglob("*.json")
        kept.write_text("{")
        assert ask(config, "a")[0].value == 7.0
        assert len(server.requests) == 2
        assert json.loads(kept.read_text())["reply"] == "7"


def test_the_key_comes_from_the_environment_and_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with endpoint(lambda *_: Reply("7")) as server:
        ask(replace(QUICK, base_url=server.url, key_variable="MY_KEY", cache=str(tmp_path)), "a")
    assert server.keys == ["Bearer sk-secret"]
    assert not any("sk-secret" in path.read_text() for path in tmp_path.rglob("*.json"))


def test_fields_of_the_request_take_the_protocols_place(tmp_path: Path) -> None:
    newer = {"max_tokens": None, "max_completion_tokens": 200, "temperature": None, "seed": 1}
    with endpoint(lambda request, n: Reply("7")) as server:
        plain = replace(QUICK, base_url=server.url, cache=str(tmp_path))
        ask(plain, "how good?")
        ask(replace(plain, request=newer), "how good?")
    sent = [{k: v for k, v in one.items() if k not in ("model", "messages")} for one in server.requests]
    assert sent == [{"temperature": 0.0, "max_tokens": 3}, {"max_completion_tokens": 200, "seed": 1}]
    assert plain.identity() != replace(plain, request=newer).identity()


def test_no_more_requests_at_once_than_configured() -> None:
    with endpoint(lambda *_: Reply("7", wait_s=0.05)) as server:
        verdicts = ask(replace(QUICK, base_url=server.url, concurrency=3), *map(str, range(12)))
    assert [verdict.value for verdict in verdicts] == [7.0] * 12
    assert server.most_at_once in (2, 3)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_ends_the_run_at_once(status: int) -> None:
    with (
        endpoint(lambda *_: Reply(status=status, body='{"error": {"message": "no"}}')) as server,
        pytest.raises(UserError, match=r"task\.judge\.model=judge: the endpoint refuses .*OPENAI_API_KEY"),
    ):
        ask(replace(QUICK, base_url=server.url, concurrency=1), "a", "b")
    assert len(server.requests) <= 2


def test_an_answer_that_the_endpoint_filters_stays_unjudged() -> None:
    filtered = Reply(status=400, body='{"error": {"message": "too wild", "code": "content_filter"}}')

    def answer(request: dict[str, Any], _: int) -> Reply:
        return filtered if "wild" in str(request) else Reply("7")

    with endpoint(answer) as server:
        config = replace(QUICK, base_url=server.url, concurrency=1)
        tame, wild, other = ask(config, "tame", "wild", "other")
    assert (tame.value, wild.value, other.value) == (7.0, None, 7.0)
    assert "too wild" in wild.reason
    assert len(server.requests) == 3


def test_openai_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY: not set"):
        Judge(QUICK)


def test_the_address_is_the_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert Judge(QUICK)._client.base_url.host == "api.openai.com"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("runs", 0),
        ("concurrency", 0),
        ("retries", -1),
        ("timeout_s", 0),
        ("base_url", "http://me:key@host/v1"),
        ("base_url", "localhost:8000"),
        ("request", {"messages": []}),
    ],
)
def test_wrong_settings_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"task\.judge\.{key}") as error:
        JudgeConfig(model="m", **{key: value})
    assert "me:key" not in str(error.value)
