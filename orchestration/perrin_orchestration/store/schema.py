"""The schema's revision: is the store one that this Perrin can use, and how does it become one.

::

    store                    answer
    empty or older           SchemaMismatch: run `perrin db upgrade`
    newer                    SchemaMismatch: upgrade perrin
    at the newest revision   its name
"""

from __future__ import annotations

import os
import sqlite3
import time
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from perrin.errors import Conflict, InvalidInput, NotFound, SchemaMismatch
from perrin_orchestration.store.database import Database

__all__ = ["backup", "backup_name", "check", "downgrade", "known", "newest", "restore", "revision", "upgrade"]


def _config(**attributes: Any) -> Config:
    config = Config(attributes=attributes)
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def known() -> tuple[str, ...]:
    """Revisions of this Perrin, newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def newest() -> str:
    """The revision that this Perrin works with."""
    return known()[0]


def revision(database: Database) -> str | None:
    """The store's revision, or None if it has none yet."""
    if database.path is not None and not database.path.exists():
        return None
    with database.connection() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def check(database: Database) -> str:
    """The store's revision, which is the newest.

    Raises:
        SchemaMismatch: it is another; names both, and the command to run.
    """
    found, wanted = revision(database), newest()
    if found == wanted:
        return wanted
    where = f"the job store {database.name}"
    if found is None:
        raise SchemaMismatch(f"{where} is empty and this Perrin needs revision {wanted}: run `perrin db upgrade`")
    if found in known():
        raise SchemaMismatch(
            f"{where} is at revision {found}, older than {wanted}, which this Perrin needs: run `perrin db upgrade`"
        )
    raise SchemaMismatch(
        f"{where} is at revision {found}, newer than {wanted}, the newest that this Perrin knows: upgrade perrin"
    )


def upgrade(database: Database, to: str = "head") -> str:
    """Migrate the store to the newest revision, in one transaction.

    Raises:
        SchemaMismatch: it is newer than this Perrin.
    """
    found = revision(database)
    if found is not None and found not in known():
        check(database)
    if database.path is not None:
        database.path.parent.mkdir(parents=True, exist_ok=True)
    with database.migration() as connection:
        command.upgrade(_config(connection=connection), to)
    return newest()


def downgrade(database: Database, to: str = "base") -> None:
    """Migrate the store back; what the newer revisions added is lost."""
    with database.migration() as connection:
        command.downgrade(_config(connection=connection), to)


def backup(database: Database, target: Path) -> Path:
    """Copy a SQLite store, as it is at one moment, while it is in use.

    Raises:
        InvalidInput: the store is PostgreSQL, which brings its own tool.
        NotFound: there is no store yet.
        Conflict: ``target`` exists.
    """
    if database.path is None:
        raise InvalidInput("store", database.name, "SQLite; back a PostgreSQL store up with pg_dump")
    if not database.path.exists():
        raise NotFound(f"there is no job store at {database.path}")
    if target.exists():
        raise Conflict(f"{target} exists: name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    source, copy = sqlite3.connect(database.path), sqlite3.connect(part)
    try:
        source.backup(copy)
    finally:
        source.close()
        copy.close()
    _durable(part)
    part.replace(target)
    return target


def backup_name(database: Database) -> str:
    """A file name that tells the revision and the time."""
    return f"perrin-{revision(database)}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**6}.db"


def restore(database: Database, source: Path) -> int:
    """Put a backup in the store's place, at the newest revision; nothing may be running on it.

    Returns:
        How many jobs were held when it was made: they are queued again, and no crash is counted.

    Raises:
        InvalidInput: the store is PostgreSQL, or ``source`` is not a backup of a Perrin store.
        SchemaMismatch: the backup is newer than this Perrin.
    """
    if database.path is None:
        raise InvalidInput("store", database.name, "SQLite; restore a PostgreSQL store with pg_restore")
    other = Database(f"sqlite:///{source}")
    try:
        if not source.is_file() or revision(other) is None:
            raise InvalidInput("file", str(source), "a backup that `perrin db backup` made")
    except Exception as error:
        raise InvalidInput("file", str(source), "a backup that `perrin db backup` made") from error
    finally:
        other.close()
    database.close()
    part = database.path.with_name(database.path.name + ".part")
    _remove(part, "", *_BESIDE)
    try:
        queued = _settled(backup(other, part))
    except BaseException:
        _remove(part, "", *_BESIDE)
        raise
    _remove(database.path, *_BESIDE)
    part.replace(database.path)
    return queued


_BESIDE = ("-wal", "-shm")


def _remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _settled(copy: Path) -> int:
    """A copy becomes a store of today, in one file: nobody holds its jobs any more."""
    from perrin_orchestration.store.jobs import JobStore

    store = JobStore(f"sqlite:///{copy}")
    try:
        upgrade(store.database)
        queued = len(store.let_go("restored from a backup"))
        with store.database.connection() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        store.close()
    _durable(copy)
    return queued


def _durable(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
