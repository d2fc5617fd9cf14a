"""Who works on a sweep: a small file for each worker, which beats as long as the worker lives."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from himap.files import write_json
from himap.search.owner import Owner, heartbeat, heartbeat_age


@dataclass(frozen=True)
class Present:
    """A worker that lives.

    Attributes:
        device: what it computes on.
        job: its job on a cluster, empty elsewhere.
        age_s: seconds since it last said that it lives.
    """

    owner: Owner
    device: str
    job: str
    age_s: float


@contextmanager
def present(folder: Path, device: str) -> Iterator[None]:
    """Be listed among a sweep's workers."""
    owner = Owner.me()
    # In containers hosts and process ids repeat.
    path = folder / "workers" / f"{owner.host}-{owner.pid}-{uuid.uuid4().hex[:8]}.json"
    job = os.environ.get("SLURM_JOB_ID", "")
    write_json(path, {"owner": asdict(owner), "device": device, "job": job})
    with heartbeat(path):
        yield


def workers(folder: Path) -> list[Present]:
    """The workers that live, by host and process."""
    found = []
    for path in sorted((folder / "workers").glob("*.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # it has just ended
            continue
        owner, age = Owner(**value["owner"]), heartbeat_age(path)
        if age is not None and owner.alive(path):
            found.append(Present(owner, value["device"], value["job"], age))
    return found
