"""A torn line of the journal spoils nothing; a storage that cannot be opened is one line without secrets."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import synthetic

from himap.errors import UserError
from himap.search.outcome import read_outcome
from himap.search.storage import cut_torn_line, open_storage, open_study
from himap.search.study import run


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b'{"a":1}\n', b'{"a":1}\n'),
        (b'{"a":1}\n{"b"', b'{"a":1}\n'),
        (b'{"a"', b""),
        (b'{"a":1}\n\n{', b'{"a":1}\n\n'),
    ],
)
def test_only_what_is_torn_is_cut(before: bytes, after: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(before)
    cut_torn_line(path)
    assert path.read_bytes() == after


def test_a_writer_killed_within_a_line_spoils_nobodys_line(tmp_path: Path) -> None:
    """Also for those who had the journal open before: the next writer mends, not only the next opener."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    studies = [open_study(open_storage("journal", tmp_path), "sweep", sampler) for _ in range(2)]
    for number, study in enumerate([*studies, *studies]):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        assert trial.number == number
        with open(tmp_path / "study.journal", "ab") as journal:
            journal.write(b'{"op_code":6,"worker_id":"killed","tri')
        study.tell(trial, (float(number), 0.5))
    last = open_study(open_storage("journal", tmp_path), "sweep", sampler)
    assert [trial.values for trial in last.get_trials()] == [[float(n), 0.5] for n in range(4)]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@127.0.0.1:1/himap", "Connection refused"),
        ("mysql+nodriver://me:secret@127.0.0.1:1/himap", "(check the URL)"),
        ("mysql+pymysql://me:secret@127.0.0.1:1/himap", "pip install 'himap[postgres]', or the driver"),
    ],
    ids=["server", "dialect", "driver"],
)
def test_what_cannot_be_opened_is_one_line_without_the_password(
    url: str, message: str, tmp_path: Path
) -> None:
    if "postgresql" in url:
        pytest.importorskip("psycopg")
    with pytest.raises(UserError) as caught:
        open_storage(url, tmp_path)
    text = str(caught.value)
    assert text.startswith(f"search.storage={url.replace('secret', '***')}: cannot be opened: ")
    assert message in text and "secret" not in text and "\n" not in text


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_database_that_lost_its_last_trials_gets_them_back(storage: str, tmp_path: Path) -> None:
    """What a power failure does to commits that had not reached the disk."""

    def go_on(trials: int) -> None:
        sweep = synthetic.sweep(trials=trials, seeds=0, storage=storage, sampler="random", group=1)
        assert run(sweep, tmp_path, synthetic.evaluate)

    def database() -> list[Path]:
        return sorted(tmp_path.glob("study.db*")) + sorted(tmp_path.glob("study.journal"))

    go_on(5)
    before = {path: path.read_bytes() for path in database()}
    go_on(8)
    results = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/result.json")}
    for path in database():
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)
    go_on(10)
    assert {path: path.stat().st_mtime_ns for path in results} == results, "no number is given twice"
    study = optuna.load_study(study_name="sweep", storage=open_storage(storage, tmp_path))
    told = {trial.number: trial.values for trial in study.get_trials() if trial.values}
    outcome = read_outcome(tmp_path)
    assert told == {trial.number: [trial.point.accuracy, trial.point.share] for trial in outcome.trials}
    assert len(told) == 10


def test_sqlite_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    storage = open_storage("sqlite", tmp_path)
    with storage.engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        wait = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    assert (mode, wait) == ("wal", 1)
