"""Whose job is next, and which: fair between users, in order within one, and not far from what is in memory already.

Loading a model can take longer than the jobs that want it. So of one user's jobs, one whose model is warm here may
overtake those that were submitted up to `WINDOW` earlier; `fairness` does the same between users; and a job whose model
is warm in an idle worker elsewhere is left to that worker for `WAIT` seconds. All three are bounded: nothing starves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection, RowMapping

from perrin_orchestration.store import fairness, rows
from perrin_orchestration.store.database import execute
from perrin_orchestration.store.fairness import Next
from perrin_orchestration.store.life import Part, tell
from perrin_orchestration.store.queries import leases as sql
from perrin_orchestration.store.values import Job

__all__ = ["WAIT", "WINDOW", "Claimer", "Warmth"]

WINDOW = 30.0
"""Seconds of rank that a cold job may be overtaken by: so much later a warm one was submitted, at equal priority."""

WAIT = 0.25
"""Seconds that a job is left to an idle worker which has its model in memory."""

LOOK = 32
"""So many of a user's jobs are looked at for a warm one."""


@dataclass(frozen=True, slots=True)
class Warmth:
    """Names of models: in memory here, and in the memory of workers elsewhere that have nothing to do."""

    here: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()


class Claimer(Part):
    """How a worker comes by its jobs."""

    def claim(
        self, owner: str, worker: str, pools: Iterable[str], limit: int, lease: float, warmth: Warmth = Warmth()
    ) -> tuple[Job, ...]:
        """Take up to ``limit`` queued jobs of ``pools`` for ``lease`` seconds.

        Whose, `perrin_orchestration.store.fairness` decides; among one user's, the lowest rank comes first, but for
        what ``warmth`` changes. Jobs of a paused or blocked pool stay where they are.
        """
        now, names = self._clock(), tuple(pools)
        values = {"owner": owner, "worker": worker, "until": now + lease}
        tries = itertools.count(1)

        def work(connection: Connection) -> tuple[Job, ...]:
            if next(tries) > 1 and (taken := rows.select(connection, sql.CLAIMED, values)):
                return tuple(rows.job(row) for row in taken)  # only the reply to the first try's commit was lost
            lines = rows.select(connection, sql.LINES, {"pools": names})
            numbers = tuple(self._turns(connection, lines, limit, now, warmth)) if lines else ()
            if not numbers:
                return ()
            claimed = rows.select(connection, sql.CLAIM, {**values, "numbers": numbers})
            tell(connection, claimed, now)
            order = {number: place for place, number in enumerate(numbers)}
            return tuple(rows.job(row) for row in sorted(claimed, key=lambda row: order[row["number"]]))

        return self.database.write(work) if limit > 0 and names else ()

    def _turns(
        self, connection: Connection, lines: Sequence[RowMapping], limit: int, now: float, warmth: Warmth
    ) -> Iterable[int]:
        standings: dict[str, fairness.Standing] = {}
        pools_of: dict[str, list[str]] = {}
        for line in lines:
            account = (line["used"], line["share"], line["typical"], line["held"], bool(line["active"]))
            standings[line["user_id"]] = fairness.Standing(*account)
            pools_of.setdefault(line["user_id"], []).append(line["pool"])
        newcomers = [user for user, standing in standings.items() if not standing.active]
        if newcomers:
            highest = rows.select(connection, sql.HIGHEST)[0]["used"]
            level = fairness.floor(tuple(standings.values()), highest)
            for user in newcomers:
                execute(connection, sql.LIFT, {"id": user, "used": level})
                old = standings[user]
                standings[user] = fairness.Standing(max(old.used, level), old.share, old.typical, old.held)
        line_up = _LineUp(connection, self.database.dialect, pools_of, limit, now, warmth)
        return fairness.turns(standings, line_up, limit)


@dataclass(frozen=True, slots=True)
class _LineUp:
    """The first jobs of a user, best first, as `fairness.turns` asks for them."""

    connection: Connection
    dialect: str
    pools_of: dict[str, list[str]]
    limit: int
    now: float
    warmth: Warmth

    def __call__(self, user: str) -> Sequence[Next]:
        heads = self._jobs(user, sql.HEADS_SQLITE if self.dialect == "sqlite" else sql.HEADS_POSTGRESQL, self.limit)
        here, elsewhere = self.warmth.here, self.warmth.elsewhere
        if not (here or elsewhere) or all(row["model"] in here for row in heads):
            return [Next(row["number"]) for row in heads]
        ahead = self._jobs(user, sql.HEADS_SQLITE, self.limit + LOOK)
        last = ahead[0]["rank"] + WINDOW if ahead else 0.0
        left = {row["number"] for row in ahead if row["model"] in elsewhere - here and self._fresh(row)}
        early = [row for row in ahead if row["model"] in here and row["rank"] <= last]
        chosen = [*early, *(row for row in ahead if row not in early and row["number"] not in left)][: self.limit]
        free = self._lock([row["number"] for row in chosen])
        return [Next(row["number"], row["model"] in here) for row in chosen if row["number"] in free]

    def _fresh(self, row: RowMapping) -> bool:
        return bool(self.now - max(row["created_at"], row["run_after"]) < WAIT)

    def _jobs(self, user: str, query: str, limit: int) -> list[RowMapping]:
        found: list[RowMapping] = []
        for pool in self.pools_of[user]:
            wanted = {"pool": pool, "user_id": user, "limit": limit, "now": self.now}
            found += rows.select(self.connection, query, wanted)
        return sorted(found, key=lambda row: (row["rank"], row["number"]))

    def _lock(self, numbers: Sequence[int]) -> set[int]:
        """Those of ``numbers`` that no other claim is looking at."""
        if self.dialect == "sqlite" or not numbers:
            return set(numbers)
        return {row["number"] for row in rows.select(self.connection, sql.LOCK_POSTGRESQL, {"numbers": tuple(numbers)})}
