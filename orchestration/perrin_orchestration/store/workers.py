"""Workers' rows: who lives, where, on what. Nothing hangs on them; jobs come back by their leases."""

from __future__ import annotations

import json
from collections.abc import Callable

from perrin_orchestration.store import rows
from perrin_orchestration.store.database import Database, execute
from perrin_orchestration.store.queries import people as queries
from perrin_orchestration.store.values import Worker

__all__ = ["FORGET_SECONDS", "LOST_SECONDS", "Workers"]

LOST_SECONDS = 15.0
"""A worker not heard of for so long is lost."""

FORGET_SECONDS = 3600.0
"""A lost worker's row is kept for so long."""


class Workers:
    """The workers' rows in ``database``."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def seen(self, worker: Worker) -> bool:
        """Write down that ``worker`` lives and how it is.

        Returns:
            Whether it has been asked to drain.
        """
        names = ("id", "host", "pid", "device", "pool", "state", "started_at", "finished_jobs")
        measured = ("memory_mb", "cpu_percent", "gpu_percent")
        values = {name: getattr(worker, name) for name in (*names, *measured)}
        values |= {"models": json.dumps(worker.models), "now": self._clock()}
        return bool(self._database.write(lambda c: rows.select(c, queries.SEE_WORKER, values))[0]["drain"])

    def drain(self, worker_id: str) -> bool:
        """Ask a worker to finish what it has and stop; whether there is such a worker."""
        return bool(self._database.write(lambda c: rows.select(c, queries.DRAIN_WORKER, {"id": worker_id})))

    def gone(self, worker_id: str) -> None:
        """A worker stopped in good order."""
        self._database.write(lambda c: execute(c, queries.REMOVE_WORKER, {"id": worker_id}))

    def lose(self) -> tuple[str, ...]:
        """Mark workers not heard of as lost, and forget those lost long ago; ids of the newly lost."""
        now = self._clock()
        lost = self._database.write(lambda c: rows.select(c, queries.LOSE_WORKERS, {"before": now - LOST_SECONDS}))
        self._database.write(lambda c: execute(c, queries.FORGET_WORKERS, {"before": now - FORGET_SECONDS}))
        return tuple(row["id"] for row in lost)

    def all(self, user_id: str) -> tuple[Worker, ...]:
        """Every worker; of the jobs it holds, those of this user."""
        found = self._database.read(lambda c: rows.select(c, queries.WORKERS))
        held = self._database.read(lambda c: rows.select(c, queries.HELD_JOBS, {"user_id": user_id}))
        return tuple(rows.worker(row, tuple(h["id"] for h in held if h["worker"] == row["id"])) for row in found)

    def warm(self, but: str) -> frozenset[str]:
        """Models in the memory of workers that have nothing to do, other than the worker ``but``."""
        values = {"id": but, "after": self._clock() - LOST_SECONDS}
        found = self._database.read(lambda c: rows.select(c, queries.WARM_WORKERS, values))
        return frozenset(name for row in found for name in json.loads(row["models"]))

    def live(self) -> int:
        """How many workers have been heard of lately."""
        values = {"after": self._clock() - LOST_SECONDS}
        return int(self._database.read(lambda c: rows.select(c, queries.LIVE_WORKERS, values))[0]["workers"])
