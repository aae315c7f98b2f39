"""The store, read: jobs, their events and their results. Nothing here takes a write lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from perrin.errors import NotFound
from perrin.wire import JobState
from perrin_orchestration.store import rows
from perrin_orchestration.store.database import Database
from perrin_orchestration.store.gather import Gather
from perrin_orchestration.store.history import Attempt, attempts
from perrin_orchestration.store.life import Part
from perrin_orchestration.store.queries import reading as queries
from perrin_orchestration.store.queries.pools import POOL_COUNTS
from perrin_orchestration.store.values import Artifact, Edge, Event, GivenFile, Group, Job

__all__ = ["About", "JobReader", "mine", "one"]


@dataclass(frozen=True, slots=True)
class About:
    """A job's results, its position in the queue (None unless it is queued), and what it waits for."""

    artifacts: tuple[Artifact, ...]
    position: int | None
    parents: tuple[Edge, ...]


FARTHEST = 1000
"""A position in the queue is counted no further than this."""


class JobReader(Part):
    """What can be asked of the store in ``database``."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(database, clock)
        self._about: Gather[Job, About] = Gather(self._about_each)

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

    def dead(self, user_id: str, *, before: str | None = None, limit: int = 50) -> tuple[Job, ...]:
        """A page of the dead letters: a user's jobs that failed or were quarantined and not tried again since."""
        values = {"user_id": user_id, "before": before, "limit": limit}
        return tuple(rows.job(row) for row in self.database.read(lambda c: rows.select(c, queries.DEAD_JOBS, values)))

    def position(self, job: Job) -> int | None:
        """About how many jobs will be claimed before this one, at most `FARTHEST`; None unless it is queued.

        Those of its own user with a lower rank; and as many of every other user, for they take turns.
        """
        return self.about([job])[job.id].position

    def group(self, group_id: str, user_id: str) -> tuple[Group, tuple[Job, ...]]:
        """A group of this user, and its jobs in the order of their submission.

        Raises:
            NotFound: this user has no such group.
        """

        def work(connection: Connection) -> tuple[Group, tuple[Job, ...]]:
            found = rows.select(connection, queries.GROUP, {"id": group_id, "user_id": user_id})
            if not found:
                raise NotFound(f"there is no group {group_id[:40]!r}")
            jobs = rows.select(connection, queries.GROUP_JOBS, {"group_id": group_id, "user_id": user_id})
            return _groups(connection, found)[0], tuple(rows.job(row) for row in jobs)

        return self.database.read(work)

    def groups(self, user_id: str, limit: int = 50) -> tuple[Group, ...]:
        """A user's groups, newest first."""
        values = {"user_id": user_id, "limit": limit}
        return self.database.read(lambda c: _groups(c, rows.select(c, queries.GROUPS, values)))

    def parents(self, job_ids: Iterable[str]) -> dict[str, tuple[Edge, ...]]:
        """What jobs wait for, or waited for, by job."""
        ids = tuple(job_ids)
        return self.database.read(lambda c: _parents(c, ids)) if ids else {}

    def children(self, job_id: str, limit: int = 500) -> tuple[str, ...]:
        """Ids of the jobs that wait, or waited, for this one, in the order of their submission."""
        values = {"id": job_id, "limit": limit}
        found = self.database.read(lambda c: rows.select(c, queries.CHILD_IDS, values))
        return tuple(row["child_id"] for row in found)

    def about_one(self, job: Job) -> About:
        """As `about`, for one job; threads that ask at the same time share the transaction."""
        return self._about(job)

    def _about_each(self, jobs: Sequence[Job]) -> Sequence[About]:
        if len({job.id for job in jobs}) < len(jobs):  # one job, as it was at two moments
            return [self.about([job])[job.id] for job in jobs]
        about = self.about(jobs)
        return [about[job.id] for job in jobs]

    def about(self, jobs: Sequence[Job]) -> dict[str, About]:
        """What is not in the rows of jobs themselves, by id; all of one moment."""
        asked = {job.id: job for job in jobs}
        queued = {key: job for key, job in asked.items() if job.state is JobState.QUEUED}
        done = tuple(key for key, job in asked.items() if job.state is JobState.SUCCEEDED)

        def work(connection: Connection) -> dict[str, About]:
            positions = _positions(connection, queued)
            artifacts = _artifacts(connection, done) if done else {}
            parents = _parents(connection, tuple(asked))
            return {key: About(artifacts.get(key, ()), positions.get(key), parents[key]) for key in asked}

        return self.database.read(work) if asked else {}

    def history(self, job_id: str) -> tuple[Attempt, ...]:
        """The attempts at a job, each with its owner, its stages and their times, and how it ended."""
        events: list[Event] = []
        while page := self.events(job_id, events[-1].number if events else 0):
            events += page
        found = self.database.read(lambda c: rows.select(c, queries.COSTS, {"job_id": job_id}))
        costs = {row["epoch"]: {"gpu_seconds": row["gpu_seconds"], "joules": row["joules"]} for row in found}
        return tuple(replace(attempt, **costs.get(attempt.epoch, {})) for attempt in attempts(events))

    def events(self, job_id: str, after: int = 0, limit: int = 500) -> tuple[Event, ...]:
        """What happened to a job after its event number ``after``, in order."""
        values = {"job_id": job_id, "after": after, "limit": limit}
        return tuple(rows.event(row) for row in self.database.read(lambda c: rows.select(c, queries.EVENTS, values)))

    def artifacts(self, job_ids: Iterable[str]) -> dict[str, tuple[Artifact, ...]]:
        """The results of jobs, by job."""
        ids = tuple(job_ids)
        return self.database.read(lambda c: _artifacts(c, ids)) if ids else {}

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

    def files(self, ids: Iterable[str], user_id: str) -> dict[str, GivenFile]:
        """Those of this user's artifacts and uploads that have these ids, by id."""
        values = {"ids": tuple(ids), "user_id": user_id}
        found = self.database.read(lambda c: rows.select(c, queries.FILES, values)) if values["ids"] else []
        return {row["id"]: GivenFile(**row) for row in found}

    def counts(self) -> Sequence[tuple[str, str, int, float]]:
        """(state, pool, jobs, time of the oldest) for everything in the store."""
        found = self.database.read(lambda c: rows.select(c, queries.JOB_COUNTS))
        return [(row["state"], row["pool"], row["jobs"], row["oldest"]) for row in found]

    def queued(self) -> int:
        """How many jobs are queued."""
        found = self.database.read(lambda c: rows.select(c, POOL_COUNTS))
        return sum(int(row["jobs"]) for row in found if row["state"] == JobState.QUEUED)


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


def _artifacts(connection: Connection, ids: tuple[str, ...]) -> dict[str, tuple[Artifact, ...]]:
    grouped: dict[str, tuple[Artifact, ...]] = dict.fromkeys(ids, ())
    for row in rows.select(connection, queries.ARTIFACTS, {"job_ids": ids}):
        grouped[row["job_id"]] += (rows.artifact(row),)
    return grouped


def _parents(connection: Connection, ids: tuple[str, ...]) -> dict[str, tuple[Edge, ...]]:
    grouped: dict[str, tuple[Edge, ...]] = dict.fromkeys(ids, ())
    for row in rows.select(connection, queries.EDGES, {"ids": ids}):
        grouped[row["child_id"]] += (Edge(row["parent_id"], row["parameter"], row["item"]),)
    return grouped


def _positions(connection: Connection, queued: Mapping[str, Job]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pool in {job.pool for job in queued.values()}:
        here = [job for job in queued.values() if job.pool == pool]
        users = {row["user_id"] for row in rows.select(connection, queries.QUEUED_USERS, {"pool": pool})}
        lengths = {user: _length(connection, pool, user) for user in users} if len(users) > 1 else {}
        for user in {job.user_id for job in here}:
            own = _ahead(connection, pool, user, [job for job in here if job.user_id == user])
            for job_id, ahead in own.items():
                others = sum(min(ahead, length) for other, length in lengths.items() if other != user)
                found[job_id] = min(FARTHEST, ahead + others)
    return found


def _length(connection: Connection, pool: str, user: str) -> int:
    line = {"pool": pool, "user_id": user, "most": FARTHEST}
    return int(rows.select(connection, queries.LINE_LENGTH, line)[0]["jobs"])


def _ahead(connection: Connection, pool: str, user: str, jobs: Sequence[Job]) -> dict[str, int]:
    """How many jobs of their own user come before these, in a pool."""
    line = {"pool": pool, "user_id": user, "most": FARTHEST}
    if len(jobs) == 1:
        turn = {**line, "rank": jobs[0].rank, "number": jobs[0].number}
        return {jobs[0].id: int(rows.select(connection, queries.TURNS, turn)[0]["jobs"])}
    places = {row["number"]: place for place, row in enumerate(rows.select(connection, queries.LINE, line))}
    return {job.id: places.get(job.number, FARTHEST) for job in jobs}


def _groups(connection: Connection, found: Sequence[Any]) -> tuple[Group, ...]:
    ids = tuple(row["id"] for row in found)
    states: dict[str, dict[str, int]] = {group_id: {} for group_id in ids}
    for row in rows.select(connection, queries.GROUP_COUNTS, {"ids": ids}) if ids else ():
        states[row["group_id"]][row["state"]] = row["jobs"]
    return tuple(rows.group(row, states[row["id"]]) for row in found)
