"""Every statement that the store runs, whole, by what it is for.

Each runs on SQLite (3.35 or later) and on PostgreSQL; only one, `leases.HEADS`, has two forms. Values are bound as
``:name``; no statement is ever put together at run time.

Every change of a job raises ``event_count`` and returns the row, so that the event that tells of it gets its number in
the same transaction. Every write of a worker names ``(id, epoch, owner)`` and therefore touches no row once the lease
has gone to somebody else.
"""

from __future__ import annotations

from perrin_orchestration.store.queries import ending, keeping, leases, people, pools, reading, submitting
from perrin_orchestration.store.queries.query import Query

__all__ = ["Query", "ending", "keeping", "leases", "people", "pools", "reading", "submitting"]
