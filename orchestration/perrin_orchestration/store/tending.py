"""What is done to jobs from outside: cancelled, taken back, stopped when it is too late, let go when it is time."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy.engine import Connection, RowMapping

from perrin.errors import Conflict, NotFound
from perrin_orchestration.store import rows
from perrin_orchestration.store.database import execute
from perrin_orchestration.store.life import Part, promote, settle, tell
from perrin_orchestration.store.queries import ending as sql
from perrin_orchestration.store.queries import leases, submitting
from perrin_orchestration.store.queries import reading as read
from perrin_orchestration.store.reading import mine
from perrin_orchestration.store.retrying import CRASHES_ALLOWED
from perrin_orchestration.store.values import Job, LeaseRef

__all__ = ["Tender"]


class Tender(Part):
    """What users and the reconciler do. Two reconcilers at once make no difference."""

    # --- cancel -------------------------------------------------------------------------------------------------------

    def cancel(self, job_id: str, user_id: str) -> Job:
        """Cancel a user's job: at once if nobody holds it, else by a flag that its holder reads.

        Raises:
            NotFound: this user has no such job.
            Conflict: it has ended, or was asked to stop before.
        """
        now, tries = self._clock(), itertools.count(1)

        def work(connection: Connection) -> Job:
            again = next(tries) > 1
            job = mine(connection, job_id, user_id)
            if not _cancel(connection, job_id, user_id, now):
                as_is = mine(connection, job_id, user_id)
                if again and as_is.cancel_requested:  # this did it, and only the reply to its commit was lost
                    return as_is
                raise Conflict(
                    f"job {job.id} has {as_is.state} already: there is nothing to cancel"
                    if as_is.state.terminal
                    else f"job {job.id} was asked to stop already"
                )
            return mine(connection, job_id, user_id)

        return self.database.write(work)

    def cancel_group(self, group_id: str, user_id: str) -> int:
        """`cancel` for every job of a group that has not ended; how many.

        Raises:
            NotFound: this user has no such group.
            Conflict: all of it has ended, or was asked to stop before.
        """
        now, seen = self._clock(), [0]

        def work(connection: Connection) -> int:
            values = {"group_id": group_id, "user_id": user_id}
            if not rows.select(connection, read.GROUP, {"id": group_id, "user_id": user_id}):
                raise NotFound(f"there is no group {group_id[:40]!r}")
            live = rows.select(connection, sql.LIVE_IN_GROUP, values)
            if not live and seen[0]:  # as with a single job
                return seen[0]
            if not live:
                raise Conflict(f"group {group_id} has ended or was asked to stop already: there is nothing to cancel")
            for row in live:  # some of them end because their parent does, before their turn comes
                _cancel(connection, row["id"], user_id, now)
            seen[0] = len(live)
            return len(live)

        return self.database.write(work)

    def cancellations(self, owners: Iterable[str]) -> tuple[LeaseRef, ...]:
        """Leases of these engine processes whose jobs were asked to stop."""
        values = {"owners": tuple(owners)}
        found = self.database.read(lambda c: rows.select(c, sql.CANCELLATIONS, values)) if values["owners"] else []
        return tuple(LeaseRef(row["id"], row["epoch"], row["owner"]) for row in found)

    # --- hints --------------------------------------------------------------------------------------------------------

    def pending_hints(self) -> dict[str, int]:
        """Pools to be hinted, each with the last outbox row that the hint stands for."""
        found = self.database.read(lambda c: rows.select(c, submitting.PENDING_HINTS))
        return {row["pool"]: row["last"] for row in found}

    def hinted(self, pool: str, last: int) -> None:
        """The hint for ``pool`` was sent, for every outbox row up to ``last``."""
        self.database.write(lambda c: execute(c, submitting.DELETE_HINTS, {"pool": pool, "last": last}))

    def queued_pools(self) -> tuple[str, ...]:
        """Pools that have claimable jobs."""
        return tuple(row["name"] for row in self.database.read(lambda c: rows.select(c, submitting.QUEUED_POOLS)))

    # --- the reconciler -----------------------------------------------------------------------------------------------

    def promote(self) -> int:
        """Queue every waiting job whose parents are done and whose time has come; how many."""
        now = self._clock()
        if not self.database.read(lambda c: rows.select(c, submitting.NEXT_DUE, {"now": now})):
            return 0  # the usual case takes no write lock
        return self.database.write(lambda c: promote(c, now))

    def rest(self) -> int:
        """Note which users have nothing to do any more; how many. Their next job starts them level with the others."""

        def work(connection: Connection) -> int:
            idle = tuple(row["id"] for row in rows.select(connection, leases.IDLE_USERS))
            return execute(connection, leases.REST, {"ids": idle}) if idle else 0

        return self.database.write(work) if self.database.read(lambda c: rows.select(c, leases.IDLE_USERS)) else 0

    def lapsed(self) -> tuple[LeaseRef, ...]:
        """The leases that ran out, seen by a transaction that could have written: so could their holders, by now."""
        now = {"now": self._clock()}

        def work(connection: Connection) -> tuple[LeaseRef, ...]:
            return tuple(_ref(row) for row in self._ran_out(connection, now))

        return self.database.write(work) if self.database.read(lambda c: rows.select(c, sql.LAPSED, now)) else ()

    def expire_leases(self, within: float = math.inf, sure: Collection[LeaseRef] | None = None) -> tuple[Job, ...]:
        """Take back every job whose lease ran out; fail those not begun at their deadline, stop those not finished.

        An expired lease counts as a crash: its job is queued again, or quarantined after `CRASHES_ALLOWED`.

        Args:
            within: seconds in which the store must let it write, or it takes nothing: what kept this waiting has kept
                holders from renewing.
            sure: take back these alone; by default whatever lapsed.

        Returns:
            The jobs that nobody holds any more, as they are now.
        """
        now = {"now": self._clock()}
        lapsed = self.database.read(lambda c: rows.select(c, sql.LAPSED, now))
        late = self.database.read(lambda c: rows.select(c, sql.TOO_LATE, now))
        began = time.monotonic()

        def work(connection: Connection) -> tuple[Job, ...]:
            expired = self._ran_out(connection, now)
            if time.monotonic() - began > within:
                return ()
            overdue = rows.select(connection, sql.OVERDUE, now)
            tell(connection, overdue, now["now"], message="not begun at its deadline")
            settle(connection, overdue, now["now"])
            known = [row for row in expired if sure is None or _ref(row) in sure]
            back = [self._take_back(connection, row, True, "its lease ran out") for row in known]
            running = rows.select(connection, sql.OVERDUE_HELD, now)
            tell(connection, running, now["now"], message="asked to stop at its deadline")
            return tuple(rows.job(row) for row in (*overdue, *(row for found in back for row in found)))

        return self.database.write(work) if lapsed or late else ()  # the usual case takes no write lock

    def _ran_out(self, connection: Connection, now: dict[str, float]) -> Sequence[RowMapping]:
        found = sql.EXPIRED_SQLITE if self.database.dialect == "sqlite" else sql.EXPIRED_POSTGRESQL
        return rows.select(connection, found, now)

    def crashed(self, owner: str, blamed: Iterable[str], how: str) -> tuple[Job, ...]:
        """An engine process died: take back all it held at once, and count a crash for the jobs to blame.

        Args:
            owner: the process's id.
            blamed: ids of the jobs it was working on at that moment; the others were only waiting beside them.
            how: what happened, for the event.
        """
        guilty = frozenset(blamed)

        def work(connection: Connection) -> tuple[Job, ...]:
            held = rows.select(connection, sql.HELD_BY, {"owner": owner})
            back = [self._take_back(connection, row, row["id"] in guilty, how) for row in held]
            return tuple(rows.job(row) for found in back for row in found)

        return self.database.write(work)

    def let_go(self, why: str) -> tuple[Job, ...]:
        """Take back every job that is held, and count no crash: its holder belongs to another time.

        Args:
            why: for the events.
        """

        def work(connection: Connection) -> tuple[Job, ...]:
            held = rows.select(connection, sql.HELD)
            back = [self._take_back(connection, row, False, why) for row in held]
            return tuple(rows.job(row) for found in back for row in found)

        return self.database.write(work)

    def _take_back(self, connection: Connection, row: RowMapping, counts: bool, how: str) -> Sequence[RowMapping]:
        now, crashes = self._clock(), row["crashes"] + int(counts)
        state, kind, message = "queued", None, None
        if crashes >= CRASHES_ALLOWED:
            state, kind = "quarantined", "crash"
            message = f"the process that ran it died {crashes} times (last: {how}); it is not tried again"
        elif row["cancel_requested"] and row["error_kind"] == "deadline":
            state, kind, message = "failed", "deadline", row["error_message"]
        elif row["cancel_requested"]:
            state, kind, message = "cancelled", "cancelled", "cancelled while it ran"
        values = {"id": row["id"], "epoch": row["epoch"], "owner": row["owner"], "crashes": int(counts)}
        end: dict[str, Any] = {"state": state, "kind": kind, "message": message}
        end["finished_at"] = None if state == "queued" else now
        changed = rows.select(connection, sql.TAKE_BACK, values | end)
        tell(connection, changed, now, message=how)
        if state != "queued":
            settle(connection, changed, now)
        return changed


def _cancel(connection: Connection, job_id: str, user_id: str, now: float) -> bool:
    whose = {"id": job_id, "user_id": user_id}
    message = "cancelled before it started"
    ended = rows.select(connection, sql.CANCEL_QUEUED, {**whose, "now": now, "message": message})
    tell(connection, ended, now)
    settle(connection, ended, now)
    if ended:
        return True
    flagged = rows.select(connection, sql.CANCEL_HELD, whose)
    tell(connection, flagged, now, message="cancel requested")
    return bool(flagged)


def _ref(row: RowMapping) -> LeaseRef:
    return LeaseRef(row["id"], row["epoch"], row["owner"])
