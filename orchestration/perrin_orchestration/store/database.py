"""Connections and transactions: short, retried when the database is busy or away, and never half-done.

SQLite runs in WAL mode with ``synchronous=FULL``: a commit that returned survives a power cut. A write takes the write
lock at its start (``BEGIN IMMEDIATE``), so it never fails half-way for want of it; a read takes none. Writes that come
from several threads while one is being synced to disk share the next transaction, each behind a savepoint of its own;
PostgreSQL does that by itself. There a transaction that waits too long, for a lock or for its client, is ended by the
server: a machine that stands still, or was cut off, in the middle of one must not keep its rows from everybody else.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, RowMapping
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from perrin.errors import InvalidInput, StorageError, Unreachable
from perrin_orchestration.store.gather import Gather

__all__ = ["Database", "execute", "rows"]

T = TypeVar("T")
Values = Mapping[str, Any]

POOL_SIZE = 48
"""Connections that are kept once they were needed: as many as the gateway has threads. Opening one takes longer than
most transactions."""

_READS = "perrin_reads"

_LIMITS = "-c idle_in_transaction_session_timeout=2000 -c lock_timeout=2000"
"""In milliseconds. What they end is tried again."""

_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A server that is gone without a word is noticed after about ten seconds; the system's own answer is two hours."""


Work = Callable[[Connection], Any]


@lru_cache(maxsize=256)
def _statement(query: str, lists: tuple[str, ...]) -> sa.TextClause:
    return sa.text(query).bindparams(*(sa.bindparam(name, expanding=True) for name in lists))


def execute(connection: Connection, query: str, values: Values | Sequence[Values] = ()) -> int:
    """Run ``query`` for its effect; the number of rows touched. Tuples are bound as in `rows`."""
    lists = _lists(values) if isinstance(values, Mapping) else ()
    return connection.execute(_statement(query, lists), values).rowcount


def rows(connection: Connection, query: str, values: Values | None = None) -> list[RowMapping]:
    """The rows of ``query``. A tuple among ``values`` is bound as a list, for ``IN :name``."""
    values = values or {}
    return list(connection.execute(_statement(query, _lists(values)), values).mappings())


def _lists(values: Values) -> tuple[str, ...]:
    return tuple(name for name, value in values.items() if isinstance(value, tuple))


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=2000"):
        connection.execute("PRAGMA " + pragma).close()


def _on_begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _away(error: DBAPIError) -> bool:
    """Trying again may help: busy, restarting, or the connection broke."""
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN"))
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(error, OperationalError) and (state is None or str(state)[:2] in {"08", "40", "53", "55", "57"})


class Database:
    """One SQLAlchemy engine, and what to do when the database does not answer.

    Args:
        url: SQLAlchemy URL; ``sqlite:///path`` or ``postgresql+psycopg://...``.
        patience: seconds a transaction is tried again for before `perrin.errors.Unreachable` is raised.

    Raises:
        InvalidInput: the URL is neither.
    """

    def __init__(self, url: str, patience: float = 10.0) -> None:
        self.patience = patience
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise InvalidInput("PERRIN_DATABASE_URL", "...", "sqlite:///PATH or postgresql+psycopg://...") from None
        self.dialect = parsed.get_backend_name()
        if self.dialect == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if self.dialect not in ("sqlite", "postgresql"):
            raise InvalidInput("PERRIN_DATABASE_URL", self.dialect, "sqlite:///PATH or postgresql+psycopg://...")
        self.path = Path(parsed.database) if self.dialect == "sqlite" and parsed.database else None
        self.name = parsed.render_as_string(hide_password=True)
        options: dict[str, Any] = {}
        if self.dialect == "postgresql":
            given = dict(parsed.query)
            options = {name: value for name, value in _PATIENCE.items() if name not in given}
            options["options"] = f"{_LIMITS} {given.get('options', '')}".strip()
        self.engine: Engine = sa.create_engine(parsed, pool_size=POOL_SIZE, max_overflow=16, connect_args=options)
        if self.dialect == "sqlite":
            event.listen(self.engine, "connect", _on_connect)
            event.listen(self.engine, "begin", _on_begin)
        self._gather: Gather[Work, Any] = Gather(self._together)
        self._reader = self.engine.execution_options(**{_READS: True})

    def write(self, work: Callable[[Connection], T]) -> T:
        """The result of ``work`` inside one transaction, committed when this returns.

        ``work`` runs again from its start if the database was busy or away, so it must not mind having run before.
        """
        if self.dialect != "sqlite":
            return self._patiently(self.engine, work)
        return cast(T, self._gather(work))

    def _together(self, works: Sequence[Work]) -> Sequence[Any]:
        """Several writes in one transaction: one that fails takes nothing but itself back."""
        if len(works) == 1:
            return [self._patiently(self.engine, works[0])]
        return self._patiently(self.engine, lambda connection: [_apart(connection, work) for work in works])

    def read(self, work: Callable[[Connection], T]) -> T:
        """The result of ``work`` on one consistent view of the database."""
        return self._patiently(self._reader, work)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A plain connection, to look at the schema or the clock."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def migration(self) -> Iterator[Connection]:
        """A transaction that may take, and wait, as long as it likes."""
        with self.engine.begin() as connection:
            if self.dialect == "postgresql":
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            yield connection

    def _patiently(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        end = time.monotonic() + self.patience
        pause = 0.01
        while True:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if getattr(error.orig, "sqlite_errorname", None) == "SQLITE_FULL" or _disk_full(error):
                    raise StorageError("the job store's disk is full: free some space and try again") from error
                if not _away(error):
                    raise
                if time.monotonic() + pause > end:
                    raise Unreachable(f"the job store {self.name} does not answer: {_line(error)}") from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 1.0)


def _apart(connection: Connection, work: Work) -> Any:
    """What ``work`` returns, or the exception that it raises, with all that it wrote taken back."""
    savepoint = connection.begin_nested()
    try:
        value = work(connection)
    except Exception as error:
        if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
            raise
        savepoint.rollback()
        return error
    savepoint.commit()
    return value


def _disk_full(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == "53100"


def _line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
