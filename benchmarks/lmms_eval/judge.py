"""A judge on this machine that answers from the words of the request alone: two askers hear the same."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "made-judge"
# himap's judged tasks, and why their requests differ from lmms-eval's.
JUDGED = {
    "llava_bench": "",
    "mm_vet": "himap's few-shot prompt is its own unless task.judge.prompt names MM-Vet's; lmms-eval's has a "
    "variable's name where MM-Vet's header says Question",
}
_BENCH = "[Context]"  # how LLaVA-Bench's requests begin
# Every made question of MM-Vet begins so; its few-shot examples do not end with it.
_QUESTION = "What is "


@dataclass
class Judge:
    """The endpoint's address and what it was asked."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)

    def take(self) -> list[dict[str, Any]]:
        """The requests since the last call."""
        taken, self.requests = self.requests, []
        return taken


def reply(request: str) -> str:
    """Two ratings for LLaVA-Bench, from the whole request; a grade for MM-Vet, from its last row."""
    if request.startswith(_BENCH):
        first, second = hashlib.sha256(request.encode()).digest()[:2]
        return f"{1 + first % 19 / 2} {1 + second % 19 / 2}\nSo I think."
    row = request[request.rindex(_QUESTION) :].strip(" |\n")
    return f"{hashlib.sha256(row.encode()).digest()[0] % 11 / 10}"


def of_task(name: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The requests that a judged task sent."""
    bench = name == "llava_bench"
    return [one for one in requests if one["messages"][-1]["content"].startswith(_BENCH) == bench]


@contextmanager
def judge() -> Iterator[Judge]:
    """Serve on the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.requests.append(asked)
            message = {"role": "assistant", "content": reply(asked["messages"][-1]["content"])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
            content = json.dumps(body | {"usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Judge(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
