"""Where Optuna keeps a study: SQLite or a journal in the sweep's folder, or any database URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.errors import UserError
from himap.files import repair_jsonl

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

_LOCK_TIMEOUT_S = 60
# Long enough for a slow network disk, short enough not to stall everybody after a kill (by default 30).
_JOURNAL_GRACE_S = 10


def open_storage(storage: str, folder: Path) -> BaseStorage:
    """Open `sqlite`, `journal` or a URL; see `SearchConfig.storage`.

    Raises:
        UserError: the database cannot be reached.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    if storage == "journal":
        return _open_journal(folder / "study.journal")
    url = f"sqlite:///{folder / 'study.db'}" if storage == "sqlite" else storage
    connect: dict[str, Any] = {"timeout": _LOCK_TIMEOUT_S} if url.startswith("sqlite") else {}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": connect})
    except (SQLAlchemyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"search.storage={storage}: cannot be opened: {reason} (check the URL).") from error


def _open_journal(path: Path) -> BaseStorage:
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path), grace_period=_JOURNAL_GRACE_S)
    # A writer killed in the middle of a line would spoil the next one's line as well.
    lock.acquire()
    try:
        repair_jsonl(path)
    finally:
        lock.release()
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def open_study(storage: BaseStorage, name: str, sampler: BaseSampler) -> Study:
    """Create or load the study of two objectives: accuracy up, FLOPs share down."""
    import optuna

    return optuna.create_study(
        storage=storage,
        sampler=sampler,
        study_name=name,
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )
