"""`himap dashboard FOLDER`: Optuna's dashboard over a sweep, on this machine alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from himap.errors import UserError
from himap.search.outcome import read_study
from himap.search.storage import open_storage

# The dashboard asks for no password and can delete studies.
HOST = "127.0.0.1"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="himap dashboard",
        description="Show a sweep, finished or running, in Optuna's dashboard. It listens on "
        f"{HOST} only; from elsewhere use ssh -L 8080:{HOST}:8080 MACHINE.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a sweep's folder")
    parser.add_argument("--port", type=int, default=8080, help="0 takes any that is free (default: 8080)")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="the database, where the sweep's URL had a password, which is not kept",
    )
    given = parser.parse_args(arguments)
    run(given.folder, given.port, given.storage)


def run(folder: Path, port: int, storage: str | None = None) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: no sweep, no such package, no such database, or a port that is taken.
    """
    storage = storage or read_study(folder)["search"]["storage"]
    if ":***@" in storage:
        raise UserError(f"himap dashboard: the password of {storage} is not kept (give --storage URL).")
    try:
        import optuna_dashboard
    except ImportError as error:
        raise UserError(
            "himap dashboard: optuna-dashboard is not installed (pip install 'himap[dashboard]')."
        ) from error
    application = optuna_dashboard.wsgi(open_storage(storage, folder.resolve()))
    try:
        server = make_server(HOST, port, application, _Server, _Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"--port={port}: cannot be used: {error} (choose another, or 0 for any).") from error
    with server:
        print(f"http://{HOST}:{server.server_port}/ (Ctrl-C ends it)", file=sys.stderr, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass
