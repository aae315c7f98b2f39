"""Retention: jobs that ended long ago go, with their events and results; bytes go once no result names them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from perrin_orchestration.store import rows
from perrin_orchestration.store.database import execute
from perrin_orchestration.store.life import Part
from perrin_orchestration.store.queries import keeping as sql

__all__ = ["Keeper", "Removed"]

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Removed:
    """What a clean-up deleted: ids of jobs, and hashes of their results that no other result has."""

    jobs: tuple[str, ...]
    hashes: tuple[str, ...]


class Keeper(Part):
    """Deletes from ``database`` what need not be kept."""

    def clean(self, keep_days: float, keep_failed_days: float, limit: int = 200) -> Removed:
        """Delete up to ``limit`` jobs that ended long enough ago, oldest first, in one transaction.

        A job stays while a job lives that takes its artifacts.

        Args:
            keep_days: for so long a job that succeeded is kept, after its end; 0 is for ever.
            keep_failed_days: the same for jobs that came to nothing.
            limit: a short transaction holds nobody up; call again while this many go.
        """
        now = self._clock()
        good, bad = (now - days * DAY if days > 0 else 0.0 for days in (keep_days, keep_failed_days))
        values = {"succeeded_before": good, "others_before": bad, "latest": max(good, bad), "limit": limit}

        def work(connection: Connection) -> Removed:
            old = rows.select(connection, sql.OLD_JOBS, values)
            if not old:
                return Removed((), ())
            ids = tuple(row["id"] for row in old)
            named = {row["sha256"] for row in rows.select(connection, sql.DELETE_ARTIFACTS, {"ids": ids})}
            for query in (sql.DELETE_EVENTS, sql.DELETE_COSTS, sql.DELETE_EDGES, sql.FORGET_RETRY, sql.DELETE_JOBS):
                execute(connection, query, {"ids": ids})
            groups = tuple({row["group_id"] for row in old} - {None})
            if groups:
                execute(connection, sql.DELETE_GROUPS, {"ids": groups})
            return Removed(ids, tuple(sorted(named - set(self._named(connection, named)))))

        return self.database.write(work) if values["latest"] > 0 else Removed((), ())

    def in_use(self, hashes: Iterable[str]) -> frozenset[str]:
        """Which of these hashes a result has."""
        return frozenset(self.database.read(lambda c: self._named(c, hashes)))

    def _named(self, connection: Connection, hashes: Iterable[str]) -> list[str]:
        wanted = tuple(hashes)
        found = rows.select(connection, sql.HASHES_IN_USE, {"hashes": wanted}) if wanted else []
        return [row["sha256"] for row in found]
