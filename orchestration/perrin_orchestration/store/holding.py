"""A job in a worker's hands: claimed, moved along, ended. Every write names its lease, and fails with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy.engine import Connection, RowMapping

from perrin.wire import JobState
from perrin_orchestration.store import fairness, rows
from perrin_orchestration.store.database import execute
from perrin_orchestration.store.life import Part, settle, tell
from perrin_orchestration.store.queries import leases as sql
from perrin_orchestration.store.queries import reading as read
from perrin_orchestration.store.reading import one
from perrin_orchestration.store.retrying import RETRIES, pause_before
from perrin_orchestration.store.values import (
    CancelRequested,
    Done,
    Job,
    LeaseRef,
    Move,
    NewArtifact,
    StaleLease,
)

__all__ = ["Holder"]


class Holder(Part):
    """What a worker does with jobs."""

    def claim(self, owner: str, worker: str, pools: Iterable[str], limit: int, lease: float) -> tuple[Job, ...]:
        """Take up to ``limit`` queued jobs of ``pools`` for ``lease`` seconds.

        Whose, `perrin_orchestration.store.fairness` decides; among one user's, the lowest rank comes first. Jobs of a
        paused or blocked pool stay where they are.
        """
        now, names = self._clock(), tuple(pools)
        values = {"owner": owner, "worker": worker, "until": now + lease}
        tries = itertools.count(1)

        def work(connection: Connection) -> tuple[Job, ...]:
            if next(tries) > 1 and (taken := rows.select(connection, sql.CLAIMED, values)):
                return tuple(rows.job(row) for row in taken)  # only the reply to the first try's commit was lost
            lines = rows.select(connection, sql.LINES, {"pools": names})
            numbers = tuple(self._turns(connection, lines, limit, now)) if lines else ()
            if not numbers:
                return ()
            claimed = rows.select(connection, sql.CLAIM, {**values, "numbers": numbers})
            tell(connection, claimed, now)
            order = {number: place for place, number in enumerate(numbers)}
            return tuple(rows.job(row) for row in sorted(claimed, key=lambda row: order[row["number"]]))

        return self.database.write(work) if limit > 0 and names else ()

    def _turns(self, connection: Connection, lines: Sequence[RowMapping], limit: int, now: float) -> Iterable[int]:
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
        heads = sql.HEADS_SQLITE if self.database.dialect == "sqlite" else sql.HEADS_POSTGRESQL

        def available(user: str) -> list[int]:
            found: list[RowMapping] = []
            for pool in pools_of[user]:
                wanted = {"pool": pool, "user_id": user, "limit": limit, "now": now}
                found += rows.select(connection, heads, wanted)
            return [row["number"] for row in sorted(found, key=lambda row: (row["rank"], row["number"]))]

        return fairness.turns(standings, available, limit)

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

    def charge(self, seconds: Mapping[str, float]) -> None:
        """Write GPU-seconds on the accounts of jobs (by id) and of their users. Wants no lease: used up is used up."""

        def work(connection: Connection) -> None:
            bills: dict[str, dict[str, Any]] = {}
            for job_id, spent in sorted(seconds.items()):
                for row in rows.select(connection, sql.CHARGE_JOB, {"id": job_id, "seconds": spent}):
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
                changed = rows.select(connection, sql.TRY_AGAIN, {**values, "run_after": now + pause})
                again = f"{message} (tried again in {pause:g} s, {held['retries'] + 1} of {RETRIES[kind].times})"
                tell(connection, changed, now, message=again)

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
