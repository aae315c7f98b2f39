"""The store, read: jobs, their events and their results. Nothing here takes a write lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from perrin.errors import NotFound
from perrin.wire import JobState
from perrin_orchestration.store import queries, rows
from perrin_orchestration.store.database import Database
from perrin_orchestration.store.values import Artifact, Event, Job

__all__ = ["JobReader", "mine", "one"]


class JobReader:
    """What can be asked of the store in ``database``."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database = database
        self._clock = clock

    def get(self, job_id: str, user_id: str | None = None) -> Job:
        """The job; with ``user_id`` only if it is this user's.

        Raises:
            NotFound: there is none.
        """
        if user_id is None:
            return self.database.read(lambda c: one(c, queries.ANY_JOB, {"id": job_id}))
        return self.database.read(lambda c: mine(c, job_id, user_id))

    def list(
        self,
        user_id: str,
        *,
        state: JobState | None = None,
        modality: str | None = None,
        search: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> tuple[Job, ...]:
        """A page of a user's jobs, newest first.

        Args:
            user_id: whose.
            state, modality: only these.
            search: only jobs whose label, model or text parameters contain this, whatever the case.
            before: only jobs submitted before this one (its id): the next page.
            limit: at most so many.
        """
        values: dict[str, Any] = {
            "user_id": user_id,
            "state": state and state.value,
            "modality": modality,
            "before": before,
        }
        values |= {"pattern": search and rows.pattern(search), "limit": limit}
        return tuple(rows.job(row) for row in self.database.read(lambda c: rows.select(c, queries.LIST_JOBS, values)))

    def position(self, job: Job) -> int | None:
        """How many jobs will be claimed before this one; None unless it is queued."""
        if job.state is not JobState.QUEUED:
            return None
        values = {"pool": job.pool, "priority": job.priority, "number": job.number, "now": self._clock()}
        return int(self.database.read(lambda c: rows.select(c, queries.POSITION, values))[0]["ahead"])

    def events(self, job_id: str, after: int = 0, limit: int = 500) -> tuple[Event, ...]:
        """What happened to a job after its event number ``after``, in order."""
        values = {"job_id": job_id, "after": after, "limit": limit}
        return tuple(rows.event(row) for row in self.database.read(lambda c: rows.select(c, queries.EVENTS, values)))

    def artifacts(self, job_ids: Iterable[str]) -> dict[str, tuple[Artifact, ...]]:
        """The results of jobs, by job."""
        ids = tuple(job_ids)
        found = self.database.read(lambda c: rows.select(c, queries.ARTIFACTS, {"job_ids": ids})) if ids else []
        grouped: dict[str, tuple[Artifact, ...]] = dict.fromkeys(ids, ())
        for row in found:
            grouped[row["job_id"]] += (rows.artifact(row),)
        return grouped

    def artifact(self, artifact_id: str, user_id: str) -> Artifact:
        """A result file of this user.

        Raises:
            NotFound: this user has no such artifact.
        """
        values = {"id": artifact_id, "user_id": user_id}
        found = self.database.read(lambda c: rows.select(c, queries.ARTIFACT, values))
        if not found:
            raise NotFound(f"there is no artifact {artifact_id[:40]!r}")
        return rows.artifact(found[0])

    def counts(self) -> Sequence[tuple[str, str, int, float]]:
        """(state, pool, jobs, time of the oldest) for everything in the store."""
        found = self.database.read(lambda c: rows.select(c, queries.JOB_COUNTS))
        return [(row["state"], row["pool"], row["jobs"], row["oldest"]) for row in found]

    def queued(self) -> int:
        """How many jobs are queued."""
        return int(self.database.read(lambda c: rows.select(c, queries.QUEUED_COUNT))[0]["jobs"])


def one(connection: Connection, query: str, values: Mapping[str, Any]) -> Job:
    """The job that ``query`` finds.

    Raises:
        NotFound: it finds none.
    """
    found = rows.select(connection, query, values)
    if not found:
        raise NotFound(f"there is no job {str(values.get('id', ''))[:40]!r}")
    return rows.job(found[0])


def mine(connection: Connection, job_id: str, user_id: str) -> Job:
    """The job, if it is this user's.

    Raises:
        NotFound: it is not, or there is none.
    """
    return one(connection, queries.JOB, {"id": job_id, "user_id": user_id})
