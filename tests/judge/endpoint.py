"""A real HTTP server on this machine that answers like an OpenAI-compatible endpoint, well or badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "judge-2026-01"


@dataclass(frozen=True)
class Reply:
    """What goes back: a message's text, or another status, or a raw body; after a while."""

    text: str = ""
    status: int = 200
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0


@dataclass
class Endpoint:
    """The server's address, what it was asked, and how many requests it held at once."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    now: int = 0
    most_at_once: int = 0

    def user(self, index: int) -> str:
        return str(self.requests[index]["messages"][-1]["content"])


@contextmanager
def endpoint(answer: Callable[[dict[str, Any], int], Reply]) -> Iterator[Endpoint]:
    """Serve; `answer(request, n)` gives the reply to a request that came n times before."""
    lock = threading.Lock()
    seen: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"])).decode()
            with lock:
                state.requests.append(json.loads(asked))
                state.keys.append(self.headers["authorization"])
                state.now += 1
                state.most_at_once = max(state.most_at_once, state.now)
                n = seen[asked] = seen.get(asked, -1) + 1
            reply = answer(json.loads(asked), n)
            time.sleep(reply.wait_s)
            message = {"role": "assistant", "content": reply.text}
            content = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL,
                       "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # fmt: skip
            body = (reply.body if reply.body is not None else json.dumps(content)).encode()
            with lock:
                state.now -= 1
            try:
                self.send_response(reply.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except BrokenPipeError:
                pass  # the client waited long enough

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
