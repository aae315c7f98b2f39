"""The life of a job, as transactions: each method is one, and each tells its story as an event in the same one.

::

    waiting -> queued -> leased -> running -> committing -> succeeded
                 ^          |         |           |
                 +----------+---------+-----------+--> failed | cancelled | quarantined

A claim raises the job's epoch; whatever a worker writes afterwards names (id, epoch, owner), so that once its lease is
somebody else's its writes touch no row and raise `StaleLease`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection, RowMapping

from perrin.errors import Conflict
from perrin.wire import JobState
from perrin_orchestration.store import queries, rows
from perrin_orchestration.store.database import Database, execute
from perrin_orchestration.store.people import People
from perrin_orchestration.store.reading import JobReader, mine, one
from perrin_orchestration.store.values import (
    CancelRequested,
    Job,
    LeaseRef,
    Move,
    NewArtifact,
    NewJob,
    StaleLease,
)
from perrin_orchestration.store.workers import Workers

__all__ = ["CRASHES_ALLOWED", "JobStore"]

CRASHES_ALLOWED = 3
"""A job whose process died this often is quarantined."""


class JobStore(JobReader):
    """The one truth about every job.

    Args:
        url: SQLAlchemy URL of the database, migrated already (`perrin_orchestration.store.schema`).
        clock: seconds since 1970.
        patience: seconds a transaction is tried again for while the database is busy or away.

    Attributes:
        people: users and their API keys.
        workers: the workers' rows.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time, patience: float = 10.0) -> None:
        super().__init__(Database(url, patience), clock)
        self._claim = queries.CLAIM_SQLITE if self.database.dialect == "sqlite" else queries.CLAIM_POSTGRESQL
        self.people = People(self.database, clock)
        self.workers = Workers(self.database, clock)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    # --- submit -------------------------------------------------------------------------------------------------------

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job and the hint that goes with it; when this returns, both are durable.

        Returns:
            The job, and whether it is new: False if this user's idempotency key brought an earlier one back.

        Raises:
            Conflict: the key was used for a different request.
        """
        values = rows.job_values(new, self._clock())

        def work(connection: Connection) -> tuple[Job, bool]:
            if self._insert(connection, values):
                return one(connection, queries.ANY_JOB, {"id": values["id"]}), True
            found = rows.select(connection, queries.ANY_JOB, {"id": values["id"]})
            if found:  # the first try of this very transaction was committed, and only its reply lost
                return rows.job(found[0]), True
            earlier = one(
                connection, queries.JOB_BY_KEY, {"user_id": new.user_id, "idempotency_key": new.idempotency_key}
            )
            if earlier.request_sha256 != new.request_sha256:
                raise Conflict(
                    f"Idempotency-Key {new.idempotency_key!r} belongs to job {earlier.id}, which asked for something "
                    "else: use a new key"
                )
            return earlier, False

        return self.database.write(work)

    def submit_many(self, new: Sequence[NewJob]) -> tuple[Job, ...]:
        """Store all of ``new`` in one transaction, or none.

        Raises:
            Conflict: one of them carries an idempotency key that was used before.
        """
        values = [rows.job_values(item, self._clock()) for item in new]
        ids = tuple(item["id"] for item in values)

        def work(connection: Connection) -> tuple[Job, ...]:
            if not rows.select(connection, queries.JOBS_BY_ID, {"ids": ids}):
                if execute(connection, queries.INSERT_JOB, values) != len(values):
                    raise Conflict("an Idempotency-Key of the list was used before: nothing was submitted")
                execute(connection, queries.INSERT_OUTBOX, values)
                execute(connection, queries.INSERT_EVENT, [rows.first_event(item) for item in values])
            found = {row["id"]: row for row in rows.select(connection, queries.JOBS_BY_ID, {"ids": ids})}
            return tuple(rows.job(found[i]) for i in ids)

        return self.database.write(work) if values else ()

    def _insert(self, connection: Connection, values: Mapping[str, Any]) -> bool:
        if not execute(connection, queries.INSERT_JOB, values):
            return False
        execute(connection, queries.INSERT_OUTBOX, values)
        execute(connection, queries.INSERT_EVENT, rows.first_event(values))
        return True

    # --- hints --------------------------------------------------------------------------------------------------------

    def pending_hints(self) -> dict[str, int]:
        """Pools to be hinted, each with the last outbox row that the hint stands for."""
        found = self.database.read(lambda c: rows.select(c, queries.PENDING_HINTS))
        return {row["pool"]: row["last"] for row in found}

    def hinted(self, pool: str, last: int) -> None:
        """The hint for ``pool`` was sent, for every outbox row up to ``last``."""
        self.database.write(lambda c: execute(c, queries.DELETE_HINTS, {"pool": pool, "last": last}))

    def queued_pools(self) -> tuple[str, ...]:
        """Pools that have claimable jobs."""
        values = {"now": self._clock()}
        return tuple(row["pool"] for row in self.database.read(lambda c: rows.select(c, queries.QUEUED_POOLS, values)))

    # --- lease --------------------------------------------------------------------------------------------------------

    def claim(self, owner: str, worker: str, pools: Iterable[str], limit: int, lease: float) -> tuple[Job, ...]:
        """Take up to ``limit`` queued jobs of ``pools`` for ``lease`` seconds, best first."""
        now = self._clock()
        values = {"owner": owner, "worker": worker, "pools": tuple(pools), "limit": limit, "now": now}

        def work(connection: Connection) -> tuple[Job, ...]:
            claimed = rows.select(connection, self._claim, {**values, "until": now + lease})
            self._tell(connection, claimed)
            order = sorted(claimed, key=lambda row: (-row["priority"], row["number"]))
            return tuple(rows.job(row) for row in order)

        return self.database.write(work) if limit > 0 and values["pools"] else ()

    def start(self, lease: LeaseRef) -> None:
        """leased -> running.

        Raises:
            StaleLease: the lease is somebody else's by now.
        """
        self._change(queries.START, lease)

    def progress(self, moves: Sequence[Move]) -> None:
        """Write progress down and extend the leases by it, all in one transaction.

        Raises:
            StaleLease: with every lease that is lost; the others' progress is written.
        """
        now = self._clock()

        def work(connection: Connection) -> Sequence[LeaseRef]:
            lost = []
            for move in moves:
                values = {"stage": move.stage, "done": move.done, "total": move.total, "until": now + move.seconds}
                changed = rows.select(connection, queries.PROGRESS, {**rows.ref(move.lease), **values})
                self._tell(connection, changed, kind=move.kind)
                lost += [] if changed else [move.lease]
            return lost

        lost = self.database.write(work) if moves else []
        if lost:
            raise StaleLease(*lost)

    def renew(self, leases: Sequence[LeaseRef], seconds: float) -> None:
        """Extend leases to ``seconds`` from now.

        Raises:
            StaleLease: with every lease that is lost; the others are extended.
        """
        until = self._clock() + seconds

        def work(connection: Connection) -> Sequence[LeaseRef]:
            return [
                lease
                for lease in leases
                if not rows.select(connection, queries.RENEW, {**rows.ref(lease), "until": until})
            ]

        lost = self.database.write(work) if leases else []
        if lost:
            raise StaleLease(*lost)

    def save(self, lease: LeaseRef, sha256: str | None) -> None:
        """The sampler state to go on from is the one with this hash; None forgets it.

        Raises:
            StaleLease: the lease is lost.
        """
        values = {**rows.ref(lease), "sha256": sha256, "now": self._clock()}
        if not self.database.write(lambda c: rows.select(c, queries.SAVE, values)):
            raise StaleLease(lease)

    def committing(self, lease: LeaseRef) -> None:
        """running -> committing: its files may be staged now.

        Raises:
            StaleLease: the lease is lost.
            CancelRequested: somebody asked it to stop first.
        """
        self._change(queries.COMMITTING, lease)

    def commit(self, lease: LeaseRef, artifacts: Sequence[NewArtifact]) -> None:
        """committing -> succeeded, with its artifacts, in one transaction. A repeat of a committed one does nothing.

        Raises:
            StaleLease: the lease is lost.
            CancelRequested: somebody asked it to stop first.
        """
        now = self._clock()
        stored = [rows.artifact_values(lease.id, i, item, now) for i, item in enumerate(artifacts)]

        def work(connection: Connection) -> None:
            changed = rows.select(connection, queries.COMMIT, {**rows.ref(lease), "now": now})
            if changed:
                if stored:
                    execute(connection, queries.INSERT_ARTIFACT, stored)
                self._tell(connection, changed)
                return
            job = one(connection, queries.ANY_JOB, {"id": lease.id})
            if not (job.state is JobState.SUCCEEDED and job.epoch == lease.epoch):
                raise _refusal(job, lease)

        self.database.write(work)

    def fail(self, lease: LeaseRef, kind: str, message: str) -> None:
        """Held -> failed, with a short kind and one line for people.

        Raises:
            StaleLease: the lease is lost.
        """
        self._change(queries.END_HELD, lease, message, state="failed", kind=kind, message=message)

    def cancelled(self, lease: LeaseRef) -> None:
        """Held -> cancelled: its holder has stopped.

        Raises:
            StaleLease: the lease is lost.
        """
        values = {"state": "cancelled", "kind": "cancelled", "message": "cancelled while it ran"}
        self._change(queries.END_HELD, lease, **values)

    def release(self, lease: LeaseRef) -> None:
        """Held -> queued, by its holder's own will; another goes on from the saved state.

        Raises:
            StaleLease: the lease is lost.
        """
        self._change(queries.RELEASE, lease, "released by its worker")

    def _change(self, query: str, lease: LeaseRef, tell: str = "", **values: Any) -> None:
        now = self._clock()

        def work(connection: Connection) -> None:
            bound = {**rows.ref(lease), **values, "now": now}
            changed = rows.select(connection, query, bound)
            if not changed:
                raise _refusal(one(connection, queries.ANY_JOB, {"id": lease.id}), lease)
            self._tell(connection, changed, message=tell)

        self.database.write(work)

    # --- from outside -------------------------------------------------------------------------------------------------

    def cancel(self, job_id: str, user_id: str) -> Job:
        """Cancel a user's job: at once if nobody holds it, else by a flag that its holder reads.

        Raises:
            NotFound: this user has no such job.
            Conflict: it has ended, or was asked to stop before.
        """
        values = {"id": job_id, "user_id": user_id, "now": self._clock(), "message": "cancelled before it started"}

        def work(connection: Connection) -> Job:
            job = mine(connection, job_id, user_id)
            changed = rows.select(connection, queries.CANCEL_QUEUED, values) or rows.select(
                connection, queries.CANCEL_HELD, {"id": job_id, "user_id": user_id}
            )
            if not changed:
                now = mine(connection, job_id, user_id)
                raise Conflict(
                    f"job {job.id} has {now.state} already: there is nothing to cancel"
                    if now.state.terminal
                    else f"job {job.id} was asked to stop already"
                )
            self._tell(connection, changed, message="cancel requested" if changed[0]["owner"] else "")
            return mine(connection, job_id, user_id)

        return self.database.write(work)

    def cancellations(self, owners: Iterable[str]) -> tuple[LeaseRef, ...]:
        """Leases of these engine processes whose jobs were asked to stop."""
        values = {"owners": tuple(owners)}
        found = self.database.read(lambda c: rows.select(c, queries.CANCELLATIONS, values)) if values["owners"] else []
        return tuple(LeaseRef(row["id"], row["epoch"], row["owner"]) for row in found)

    def expire_leases(self) -> tuple[Job, ...]:
        """Take back every job whose lease ran out, and fail those still queued at their deadline.

        An expired lease counts as a crash: its job is queued again, or quarantined after `CRASHES_ALLOWED`.

        Returns:
            The jobs that were touched, as they are now.
        """
        now = self._clock()
        if not self.database.read(lambda c: rows.select(c, queries.UNATTENDED, {"now": now})):
            return ()  # the usual case takes no write lock

        def work(connection: Connection) -> tuple[Job, ...]:
            overdue = rows.select(connection, queries.OVERDUE, {"now": now})
            self._tell(connection, overdue, message="still queued at its deadline")
            expired = rows.select(connection, queries.EXPIRED, {"now": now})
            back = [self._take_back(connection, row, True, "its lease ran out") for row in expired]
            return tuple(rows.job(row) for row in (*overdue, *(row for found in back for row in found)))

        return self.database.write(work)

    def crashed(self, owner: str, blamed: Iterable[str], how: str) -> tuple[Job, ...]:
        """An engine process died: take back all it held at once, and count a crash for the jobs to blame.

        Args:
            owner: the process's id.
            blamed: ids of the jobs it was working on at that moment; the others were only waiting beside them.
            how: what happened, for the event.
        """
        guilty = frozenset(blamed)

        def work(connection: Connection) -> tuple[Job, ...]:
            held = rows.select(connection, queries.HELD_BY, {"owner": owner})
            back = [self._take_back(connection, row, row["id"] in guilty, how) for row in held]
            return tuple(rows.job(row) for found in back for row in found)

        return self.database.write(work)

    def _take_back(self, connection: Connection, row: RowMapping, counts: bool, how: str) -> Sequence[RowMapping]:
        crashes = row["crashes"] + int(counts)
        state, kind, message = "queued", None, None
        if crashes >= CRASHES_ALLOWED:
            state, kind = "quarantined", "crash"
            message = f"the process that ran it died {crashes} times (last: {how}); it is not tried again"
        elif row["cancel_requested"]:
            state, kind, message = "cancelled", "cancelled", "cancelled while it ran"
        values = {"id": row["id"], "epoch": row["epoch"], "owner": row["owner"], "crashes": int(counts)}
        end: dict[str, Any] = {"state": state, "kind": kind, "message": message}
        end["finished_at"] = None if state == "queued" else self._clock()
        changed = rows.select(connection, queries.TAKE_BACK, values | end)
        self._tell(connection, changed, message=how)
        return changed

    def _tell(
        self, connection: Connection, changed: Sequence[RowMapping], *, kind: str = "state", message: str = ""
    ) -> None:
        """Write the event of each changed row; its number is the one that the change has just raised."""
        now = self._clock()
        if changed:
            execute(connection, queries.INSERT_EVENT, [rows.event_of(row, kind, message, now) for row in changed])


def _refusal(job: Job, lease: LeaseRef) -> Exception:
    return CancelRequested(job.id) if job.lease == lease and job.cancel_requested else StaleLease(lease)
