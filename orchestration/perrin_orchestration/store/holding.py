"""A job in a worker's hands: moved along, ended. Every write names its lease, and fails with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy.engine import Connection, RowMapping

from perrin.wire import JobState
from perrin_orchestration.store import rows
from perrin_orchestration.store.database import execute
from perrin_orchestration.store.life import Part, settle, tell
from perrin_orchestration.store.queries import leases as sql
from perrin_orchestration.store.queries import reading as read
from perrin_orchestration.store.reading import one
from perrin_orchestration.store.retrying import RETRIES, pause_before
from perrin_orchestration.store.values import (
    CancelRequested,
    Done,
    LeaseRef,
    Move,
    NewArtifact,
    StaleLease,
)

__all__ = ["Holder"]


class Holder(Part):
    """What a worker does with the jobs that it has claimed."""

    def start(self, *leases: LeaseRef) -> None:
        """leased -> running, in one transaction.

        Raises:
            StaleLease: with every lease that is somebody else's by now; the others are started.
        """
        self._each(sql.START, leases)

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
                changed = rows.select(connection, sql.PROGRESS, {**rows.ref(move.lease), **values})
                tell(connection, changed, now, kind=move.kind)
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
                lease for lease in leases if not rows.select(connection, sql.RENEW, {**rows.ref(lease), "until": until})
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
        if not self.database.write(lambda c: rows.select(c, sql.SAVE, values)):
            raise StaleLease(lease)

    def charge(self, seconds: Mapping[str, float], joules: Mapping[str, float] | None = None) -> None:
        """Write what jobs (by id) have taken of a device on their accounts, and the seconds on their users'.

        Wants no lease: used up is used up. It counts as taken by the job's last attempt.

        Args:
            seconds: of the device.
            joules: for those of these jobs whose device tells.
        """
        energy = joules or {}

        def work(connection: Connection) -> None:
            bills: dict[str, dict[str, Any]] = {}
            for job_id, spent in sorted(seconds.items()):
                values = {"id": job_id, "seconds": spent, "joules": energy.get(job_id)}
                for row in rows.select(connection, sql.CHARGE_JOB, values):
                    execute(connection, sql.CHARGE_ATTEMPT, values | {"epoch": row["epoch"]})
                    bill = bills.setdefault(row["user_id"], {"id": row["user_id"], "seconds": 0.0, "job": 0.0})
                    bill["seconds"] += spent
                    bill["job"] = max(bill["job"], row["gpu_seconds"])
            for user_id in sorted(bills):
                execute(connection, sql.CHARGE_USER, bills[user_id])

        if seconds:
            self.database.write(work)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def committing(self, *leases: LeaseRef) -> None:
        """running -> committing, in one transaction: their files may be staged now.

        Raises:
            StaleLease: with every lease that is lost; the others go on.
            CancelRequested: all that did not go on were asked to stop first.
        """
        self._each(sql.COMMITTING, leases)

    def commit(self, lease: LeaseRef, artifacts: Sequence[NewArtifact]) -> None:
        """committing -> succeeded, with its artifacts, in one transaction. A repeat of a committed one does nothing.

        Raises:
            StaleLease: the lease is lost.
            CancelRequested: somebody asked it to stop first.
        """
        self.commit_many([Done(lease, artifacts)])

    def commit_many(self, done: Sequence[Done]) -> None:
        """`commit` for several jobs, in one transaction.

        Raises:
            StaleLease, CancelRequested: as with `committing`.
        """
        artifacts = {item.lease.id: item.artifacts for item in done}

        def also(connection: Connection, changed: Sequence[RowMapping], now: float) -> None:
            stored = [
                rows.artifact_values(row["id"], number, item, now)
                for row in changed
                for number, item in enumerate(artifacts[row["id"]])
            ]
            if stored:
                execute(connection, sql.INSERT_ARTIFACT, stored)
            settle(connection, changed, now)

        self._each(sql.COMMIT, [item.lease for item in done], also)

    def fail(self, lease: LeaseRef, kind: str, message: str) -> None:
        """Held -> failed, with a short kind and one line for people; or -> waiting, if that kind may pass.

        Raises:
            StaleLease: the lease is lost.
        """
        now = self._clock()

        def work(connection: Connection) -> None:
            held = _held(connection, lease)
            pause = None if held["cancel_requested"] else pause_before(kind, held["retries"])
            values = {**rows.ref(lease), "kind": kind, "message": message}
            if pause is None or (held["deadline"] is not None and now + pause >= held["deadline"]):
                changed = rows.select(connection, sql.END_HELD, {**values, "state": "failed", "now": now})
                tell(connection, changed, now, message=message)
                settle(connection, changed, now)
            else:
                again = {"run_after": now + pause, "resume": kind == "storage"}
                changed = rows.select(connection, sql.TRY_AGAIN, values | again)
                line = f"{message} (tried again in {pause:g} s, {held['retries'] + 1} of {RETRIES[kind].times})"
                tell(connection, changed, now, message=line)

        self.database.write(work)

    def cancelled(self, lease: LeaseRef) -> None:
        """Held -> cancelled: its holder has stopped. A job that was stopped at its deadline has failed.

        Raises:
            StaleLease: the lease is lost.
        """
        now = self._clock()
        self.database.write(lambda c: _stopped(c, _held(c, lease), now))

    def release(self, lease: LeaseRef) -> None:
        """Held -> queued, by its holder's own will; another goes on from the saved state. One that was asked to stop
        has stopped.

        Raises:
            StaleLease: the lease is lost.
        """
        now = self._clock()

        def work(connection: Connection) -> None:
            held = _held(connection, lease)
            if held["cancel_requested"]:
                _stopped(connection, held, now)
                return
            changed = rows.select(connection, sql.RELEASE, rows.ref(lease))
            tell(connection, changed, now, message="released by its worker")

        self.database.write(work)

    def _each(self, query: str, leases: Sequence[LeaseRef], also: Any = None) -> None:
        """Run ``query`` for leases, those of one owner and epoch at a time, and tell of what has changed."""
        now = self._clock()

        def work(connection: Connection) -> list[Exception]:
            changed: list[RowMapping] = []
            by_holder = sorted(leases, key=lambda lease: (lease.owner, lease.epoch, lease.id))
            for (owner, epoch), group in groupby(by_holder, key=lambda lease: (lease.owner, lease.epoch)):
                ids = tuple(lease.id for lease in group)
                values = {"ids": ids, "owner": owner, "epoch": epoch, "now": now}
                changed += rows.select(connection, query, values)
            done = {(row["id"], row["epoch"]) for row in changed}
            if changed:
                tell(connection, changed, now)
                if also is not None:
                    also(connection, changed, now)
            refused = [lease for lease in leases if (lease.id, lease.epoch) not in done]
            return [why for lease in refused if (why := _refusal(connection, lease, query)) is not None]

        refused = self.database.write(work) if leases else []
        stale = [ref for why in refused if isinstance(why, StaleLease) for ref in why.refs]
        if stale:
            raise StaleLease(*stale)
        if refused:
            raise refused[0]


def _held(connection: Connection, lease: LeaseRef) -> RowMapping:
    found = rows.select(connection, sql.HELD_NOW, rows.ref(lease))
    if not found:
        raise StaleLease(lease)
    return found[0]


def _stopped(connection: Connection, held: RowMapping, now: float) -> None:
    late = held["error_kind"] == "deadline"
    values = {"id": held["id"], "epoch": held["epoch"], "owner": held["owner"], "now": now}
    end = (
        {"state": "failed", "kind": "deadline", "message": held["error_message"]}
        if late
        else {"state": "cancelled", "kind": "cancelled", "message": "cancelled while it ran"}
    )
    changed = rows.select(connection, sql.END_HELD, values | end)
    tell(connection, changed, now, message=str(end["message"]))
    settle(connection, changed, now)


_BECOMES: Mapping[str, JobState] = {sql.START: JobState.RUNNING, sql.COMMITTING: JobState.COMMITTING}


def _refusal(connection: Connection, lease: LeaseRef, query: str) -> Exception | None:
    """Why a write touched nothing; None if it had been made before, and only its reply was lost."""
    job = one(connection, read.ANY_JOB, {"id": lease.id})
    if query is sql.COMMIT and job.state is JobState.SUCCEEDED and job.epoch == lease.epoch:
        return None
    if job.lease == lease and job.state is _BECOMES.get(query):
        return None
    return CancelRequested(job.id) if job.lease == lease and job.cancel_requested else StaleLease(lease)
