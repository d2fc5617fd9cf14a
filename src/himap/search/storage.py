"""Where Optuna keeps a study: SQLite or a journal in the sweep's folder, or any database URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.config import without_secrets
from himap.errors import UserError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage, RDBStorage

_LOCK_TIMEOUT_S = 60
_CONNECT_TIMEOUT_S = 20
# Long enough for a slow network disk, short enough not to stall everybody after a kill (by default 30).
_JOURNAL_GRACE_S = 10


def open_storage(storage: str, folder: Path) -> BaseStorage:
    """Open `sqlite`, `journal` or a URL; see `SearchConfig.storage`.

    Raises:
        UserError: the database cannot be reached, or its driver is not installed.
    """
    if storage == "journal":
        return _open_journal(folder / "study.journal")
    return _open_database(f"sqlite:///{folder / 'study.db'}" if storage == "sqlite" else storage, storage)


def _open_database(url: str, storage: str) -> BaseStorage:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    settings: dict[str, Any]
    if url.startswith("sqlite"):
        settings = {"connect_args": {"timeout": _LOCK_TIMEOUT_S}}
    else:
        # A server may have closed a connection during a long trial.
        settings = {"pool_pre_ping": True}
    if url.startswith("postgresql://"):
        # The driver of the extra `postgres`; without a name SQLAlchemy's versions mean different ones.
        url = url.replace("://", "+psycopg://", 1)
        settings["connect_args"] = {"connect_timeout": _CONNECT_TIMEOUT_S}
    try:
        opened = optuna.storages.RDBStorage(url, engine_kwargs=settings)
        if url.startswith("sqlite"):
            _hurry(opened)
        return opened
    except (SQLAlchemyError, ImportError) as error:
        remedy = "check the URL"
        # Optuna raises its own ImportError for any driver that is missing.
        if isinstance(error, ImportError):
            remedy = "pip install 'himap[postgres]', or the driver of your database"
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(
            without_secrets(f"search.storage={storage}: cannot be opened: {reason} ({remedy}).")
        ) from error


def _hurry(storage: RDBStorage) -> None:
    """Let SQLite append its commits to a log, and the system choose when they reach the disk.

    By default a trial waits some thirty times for the disk while others wait for it. Killed processes lose
    nothing either way; after a power failure the last trials come back from the sweep's folder.
    """
    from sqlalchemy import event

    def set_up(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(storage.engine, "connect", set_up)
    # The connections that were opened before do not know of it.
    storage.engine.dispose()


def _open_journal(path: Path) -> BaseStorage:
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalStorage

    class Lock(JournalFileSymlinkLock):
        """Whoever may write mends first: a writer killed within a line would spoil the next one's as well."""

        def acquire(self) -> bool:
            held = super().acquire()
            try:
                cut_torn_line(path)
            except BaseException:
                self.release()
                raise
            return held

    return JournalStorage(
        JournalFileBackend(str(path), lock_obj=Lock(str(path), grace_period=_JOURNAL_GRACE_S))
    )


def cut_torn_line(path: Path) -> None:
    """Cut off what follows the last end of a line; cheap where nothing does."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        os.fsync(file.fileno())


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
