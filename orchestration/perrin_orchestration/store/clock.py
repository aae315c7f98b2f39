"""The time of the store, which leases are granted and judged by: one clock for all machines.

PostgreSQL's own. A machine whose clock is an hour wrong would otherwise take every other's jobs, again and again. The
server is asked now and then; in between, this machine's monotonic clock counts, which nobody sets. SQLite lies on one
machine, whose clock all its processes share.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from perrin_orchestration.store import rows
from perrin_orchestration.store.database import Database
from perrin_orchestration.store.queries import clock as sql

__all__ = ["ServerClock", "clock_of"]

ASK_SECONDS = 30.0
"""How long the last answer of the server counts; a quartz drifts less than a millisecond in that time."""

AGAIN_SECONDS = 1.0
"""While the server does not answer, ask this often."""


class ServerClock:
    """Seconds since 1970, as PostgreSQL says. Until it was reached for the first time, as this machine says.

    Args:
        database: whose time it is.
        monotonic: seconds, from a clock that is never set.
        local: this machine's time of day.
    """

    def __init__(
        self,
        database: Database,
        monotonic: Callable[[], float] = time.monotonic,
        local: Callable[[], float] = time.time,
    ) -> None:
        self._database, self._monotonic, self._local = database, monotonic, local
        self._ahead: float | None = None
        self._ask_at = 0.0

    def __call__(self) -> float:
        """Now."""
        if self._monotonic() >= self._ask_at:
            self._ask()
        return self._local() if self._ahead is None else self._monotonic() + self._ahead

    def _ask(self) -> None:
        """How far the server's time is ahead of the monotonic clock. One try: a clock must not keep anybody waiting."""
        before = self._monotonic()
        self._ask_at = before + AGAIN_SECONDS
        try:
            with self._database.connection() as connection:
                now = rows.select(connection, sql.NOW_POSTGRESQL)[0]["now"]
        except DBAPIError:
            return
        after = self._monotonic()
        self._ahead, self._ask_at = now - (before + after) / 2, after + ASK_SECONDS


def clock_of(database: Database) -> Callable[[], float]:
    """The clock that belongs to ``database``."""
    return time.time if database.dialect == "sqlite" else ServerClock(database)
