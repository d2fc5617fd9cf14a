"""`himap dashboard`: on this machine alone, quiet at its end, and one line where it cannot begin."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import synthetic

from himap.commands import dashboard
from himap.errors import UserError
from himap.search.study import run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    run(synthetic.sweep(trials=2, seeds=0, heldout_points=0, sampler="random"), tmp_path, synthetic.evaluate)
    return tmp_path


def test_it_shows_the_study_and_ends_quietly(sweep: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    command = [sys.executable, "-m", "himap", "dashboard", str(sweep), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = process.stderr.readline().split()[0]
    try:
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}api/studies", timeout=30) as reply:
            (study,) = json.load(reply)["study_summaries"]
        assert study["study_name"] == "sweep" and study["directions"] == ["maximize", "minimize"]
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and not err.strip()


def test_what_keeps_it_from_beginning_is_one_line(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="holds no sweep"):
        dashboard.run(sweep / "nowhere", 0)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(UserError, match=r"pip install 'himap\[dashboard\]'"):
        dashboard.run(sweep, 0)
    study = sweep / "study.json"
    study.write_text(study.read_text().replace('"sqlite"', '"postgresql://me:***@host/x"'))
    with pytest.raises(UserError, match=r"the password of .* is not kept \(give --storage URL\)"):
        dashboard.run(sweep, 0)
