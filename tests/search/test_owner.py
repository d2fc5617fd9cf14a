"""Whether the owner of a trial lives, on this machine, in a container beside it and on another host."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from himap import files
from himap.errors import UserError
from himap.search import owner
from himap.search.owner import DEAD_AFTER_S, Owner, heartbeat, heartbeat_age, locked

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


@pytest.fixture
def beat(tmp_path: Path) -> Callable[[float], Path]:
    """A heartbeat of that age in seconds."""

    def make(age: float) -> Path:
        path = tmp_path / ".heartbeat"
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    return make


@pytest.fixture
def ended() -> Owner:
    """An owner of this machine whose process has ended."""
    code = "import json; from dataclasses import asdict; from himap.search.owner import Owner\n"
    code += "print(json.dumps(asdict(Owner.me())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import json

    return Owner(**json.loads(done.stdout))


def test_who_is_here_and_beats_lives(beat: Callable[[float], Path]) -> None:
    assert Owner.me().alive(beat(0))


def test_who_is_gone_is_dead_at_once(ended: Owner, beat: Callable[[float], Path]) -> None:
    assert not ended.alive(beat(0)), "nobody waits for a heartbeat to grow old"


def test_another_process_with_the_same_id_is_not_the_owner(beat: Callable[[float], Path]) -> None:
    assert not replace(Owner.me(), started="1").alive(beat(0))


def test_a_process_id_alone_is_no_life(beat: Callable[[float], Path]) -> None:
    assert not Owner.me().alive(beat(DEAD_AFTER_S + 60)), "it hangs: nobody else would get its trial"


def test_a_machine_that_slept_kills_nobody(
    beat: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "_slept", lambda: 3600.0)
    assert Owner.me().alive(beat(3600))
    assert not Owner.me().alive(beat(3600 + DEAD_AFTER_S + 60))


@pytest.mark.parametrize("space", ["another-boot pid:[4026531836]", ""])
def test_elsewhere_only_the_heartbeat_counts(space: str, ended: Owner, beat: Callable[[float], Path]) -> None:
    """A container that shares this host's name, another host, a folder of an older version."""
    elsewhere = replace(ended, space=space)
    assert elsewhere.host == Owner.me().host
    assert elsewhere.alive(beat(0)), "its id means nothing here"
    assert elsewhere.alive(beat(DEAD_AFTER_S - 30))
    assert not elsewhere.alive(beat(DEAD_AFTER_S + 30))
    assert not elsewhere.alive(beat(0).with_name("none"))


def test_processes_of_one_machine_share_their_space(ended: Owner) -> None:
    assert ended.space == Owner.me().space and " pid:[" in ended.space


def test_a_container_beside_us_is_another_space(tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", sys.executable, "-c"]
    code = "from himap.search.owner import Owner; print(Owner.me().space)"
    done = subprocess.run([*command, code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no new process namespace may be made here")
    assert done.stdout.strip() != Owner.me().space


def test_the_age_is_by_the_clock_of_the_disk(
    beat: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = beat(10)
    ahead = time.time() + 9000
    monkeypatch.setattr(time, "time", lambda: ahead)
    age = heartbeat_age(path)
    assert age is not None and 9 < age < 60


def test_a_heartbeat_beats_until_the_work_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_BEAT_S", 0.02)
    path = tmp_path / ".heartbeat"
    with heartbeat(path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not path.exists()


def test_a_disk_that_fails_for_a_while_stops_no_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "_BEAT_S", 0.02)
    place, away = tmp_path / "disk", tmp_path / "away"
    place.mkdir()
    with heartbeat(place / ".heartbeat"):
        place.rename(away)
        time.sleep(0.2)
        away.rename(place)
        os.utime(place / ".heartbeat", (0, 0))
        deadline = time.monotonic() + 20
        while (place / ".heartbeat").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"hydra\.run\.dir=.*refuses locks") as caught, locked(tmp_path):
        pass
    assert "\n" not in str(caught.value)
