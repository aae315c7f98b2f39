"""The life of a job, as transactions: each method is one, and each tells its story as an event in the same one.

::

    waiting -> queued -> leased -> running -> committing -> succeeded
       ^         ^ |        |         |           |
       |         | +--------+---------+-----------+--> failed | cancelled | quarantined
       |         +----------+---------+-----------+    (released, or its process died)
       +--------------------+---------+-----------+    (failed in a way that may pass: tried again after a pause)

A claim raises the job's epoch; whatever a worker writes afterwards names (id, epoch, owner), so that once its lease is
somebody else's its writes touch no row and raise `StaleLease`.
"""

from __future__ import annotations

from collections.abc import Callable

from perrin_orchestration.store.claiming import Claimer
from perrin_orchestration.store.clock import clock_of
from perrin_orchestration.store.database import Database
from perrin_orchestration.store.holding import Holder
from perrin_orchestration.store.keeping import Keeper
from perrin_orchestration.store.people import People
from perrin_orchestration.store.pools import Pools
from perrin_orchestration.store.reading import JobReader
from perrin_orchestration.store.retrying import CRASHES_ALLOWED
from perrin_orchestration.store.submitting import Submitter
from perrin_orchestration.store.tending import Tender
from perrin_orchestration.store.workers import Workers

__all__ = ["CRASHES_ALLOWED", "JobStore"]


class JobStore(Submitter, Claimer, Holder, Tender, JobReader):
    """The one truth about every job: what can be submitted, claimed, held, tended and read, in one object.

    Args:
        url: SQLAlchemy URL of the database, migrated already (`perrin_orchestration.store.schema`).
        clock: seconds since 1970; by default the database's own (`perrin_orchestration.store.clock`).
        patience: seconds a transaction is tried again for while the database is busy or away.

    Attributes:
        people: users, their API keys and their accounts.
        pools: open, paused, draining and blocked pools.
        workers: the workers' rows.
        keeper: retention.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] | None = None, patience: float = 10.0) -> None:
        database = Database(url, patience)
        clock = clock or clock_of(database)
        super().__init__(database, clock)
        self.people = People(self.database, clock)
        self.pools = Pools(self.database, clock)
        self.workers = Workers(self.database, clock)
        self.keeper = Keeper(self.database, clock)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
