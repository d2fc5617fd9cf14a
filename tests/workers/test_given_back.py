"""A stop between claiming trials and evaluating them gives the trials back, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic

from himap.files import exclusive
from himap.search.study import run
from himap.search.trials import Record, TrialStore
from himap.search.worker import Worker
from himap.strategy import Strategy


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


def test_nobody_takes_over_what_is_being_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host may do so under the folder's lock, as soon as there is no heartbeat."""
    held: list[bool] = []

    @synthetic.one_by_one
    def evaluate(strategy: Strategy, split: str, folder: Path) -> dict[str, Any]:
        if folder.parent.name == "trials":
            raise KeyboardInterrupt
        return synthetic.answer(strategy, split, folder)

    start = TrialStore.start

    def listen(store: TrialStore, record: Record) -> None:
        try:
            with exclusive(tmp_path):
                held.append(False)
        except BlockingIOError:
            held.append(True)
        start(store, record)

    monkeypatch.setattr(TrialStore, "start", listen)
    with pytest.raises(KeyboardInterrupt):
        run(synthetic.sweep(trials=6, seeds=2, group=3), tmp_path, evaluate)
    assert held == [True] * 6, "three were begun and given back"
