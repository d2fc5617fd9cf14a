"""A stop between claiming trials and evaluating them gives the trials back, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from himap.search.study import run
from himap.search.trials import TrialStore
from himap.search.worker import Worker


@pytest.mark.parametrize("step", ["_work", "_tell"])
def test_a_stop_at_any_step_gives_trials_back(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    sweep = synthetic.sweep(trials=6, seeds=2, sampler="random", group=3)
    with monkeypatch.context() as patch:
        patch.setattr(Worker, step, stop)
        with pytest.raises(KeyboardInterrupt):
            run(sweep, tmp_path, synthetic.evaluate)
    store = TrialStore(tmp_path)
    records = [record for record in store.records() if store.result(record.number) is None]
    assert records and [record.attempt for record in records] == [0] * len(records)
    assert not list(tmp_path.glob("trials/*/.heartbeat")), "no other host waits for them to grow old"
