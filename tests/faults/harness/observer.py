"""A look into the store from outside, past every proxy: who holds what, and everything when all is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from harness.history import Held

__all__ = ["Holding", "Observer"]


@dataclass(frozen=True)
class Holding:
    """A job in somebody's hands."""

    job: str
    epoch: int
    owner: str
    worker: str
    state: str
    stage: str | None
    done: int
    lease_until: float

    @property
    def held(self) -> Held:
        """As a fault's victim."""
        return Held(self.job, self.epoch, self.lease_until)


_HOLDINGS = sa.text(
    "SELECT id, epoch, owner, worker, state, stage, done, lease_until FROM jobs WHERE owner IS NOT NULL ORDER BY number"
)
_WORKERS = sa.text("SELECT id, pid FROM workers ORDER BY started_at")
_LIVE = sa.text("SELECT COUNT(*) FROM jobs WHERE finished_at IS NULL")
_SUCCEEDED = sa.text("SELECT COUNT(*) FROM jobs WHERE state = 'succeeded'")
_JOB = sa.text("SELECT * FROM jobs WHERE id = :id")
_EVENTS = sa.text("SELECT * FROM events WHERE job_id = :id ORDER BY number")


class Observer:
    """Reads the database at ``url``."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, pool_size=4, pool_pre_ping=True)

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def holdings(self) -> list[Holding]:
        """Who holds what now; nothing while the database does not answer."""
        names = ("id", "epoch", "owner", "worker", "state", "stage", "done", "lease_until")
        return [Holding(*(row[name] for name in names)) for row in self._rows(_HOLDINGS)]

    def workers(self) -> dict[str, int]:
        """Process ids of the workers, by the workers' ids."""
        return {row["id"]: row["pid"] for row in self._rows(_WORKERS)}

    def live(self) -> int:
        """How many jobs have not ended."""
        rows = self._rows(_LIVE)
        return int(next(iter(rows[0].values()))) if rows else 0

    def succeeded(self) -> int:
        """How many jobs have succeeded."""
        rows = self._rows(_SUCCEEDED)
        return int(next(iter(rows[0].values()))) if rows else 0

    def job(self, job_id: str) -> Mapping[str, Any]:
        """A job's row; empty if it is not there."""
        return next(iter(self._rows(_JOB, id=job_id)), {})

    def events(self, job_id: str) -> list[Mapping[str, Any]]:
        """A job's events."""
        return self._rows(_EVENTS, id=job_id)

    def table(self, name: str) -> tuple[Mapping[str, Any], ...]:
        """All of a table; a job's parameters as values."""
        with self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {name}")).mappings()]
        for row in rows:
            if "parameters" in row:
                row["parameters"] = json.loads(row["parameters"])
        return tuple(rows)

    def _rows(self, statement: sa.TextClause, **values: Any) -> list[dict[str, Any]]:
        try:
            with self._engine.connect() as connection:
                return [dict(row) for row in connection.execute(statement, values).mappings()]
        except SQLAlchemyError:
            return []
