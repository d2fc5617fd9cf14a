"""One finished sweep over the synthetic stand-in, for all tests of the report."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import synthetic

    from himap.report.sweep import write_report
    from himap.search.study import run

    folder = tmp_path_factory.mktemp("finished") / "sweep"
    assert run(synthetic.sweep(trials=24, seeds=12, heldout_points=5), folder, synthetic.evaluate)
    write_report(folder)
    return folder
