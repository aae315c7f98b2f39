"""A process dies before or after any commit: whatever was acknowledged is there, and every job still ends once.

P1 an acknowledged submit is durable, P2 one end, P3 at most one committed result, P4 a dead owner writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from perrin.errors import Conflict
from perrin.wire import JobState
from perrin_orchestration.store import Done, Edge, JobStore, Move, NewArtifact, NewGroup, NewJob, StaleLease
from perrin_orchestration.store.models import Base

FILE = NewArtifact("0.pgm", "image/x-portable-graymap", 5, "a" * 64, (0,), {})
POOLS = ["dots"]


class Died(BaseException):
    """The process is no more."""


@contextmanager
def dying(store: JobStore, at: int, when: str) -> Iterator[list[int]]:
    """Let the process die before or after its commit number ``at``; counts commits."""
    dialect: Any = store.database.engine.dialect
    commit, seen = dialect.do_commit, [0]

    def counted(connection: object) -> None:
        seen[0] += 1
        if seen[0] == at and when == "before":
            raise Died
        commit(connection)
        if seen[0] == at:
            raise Died

    dialect.do_commit = counted
    try:
        yield seen
    finally:
        dialect.do_commit = commit


@dataclass
class Told:
    """What a person was told before the process died: these jobs exist, these have ended, this key was sent."""

    jobs: list[str] = field(default_factory=list)
    ended: dict[str, JobState] = field(default_factory=dict)


def story(store: JobStore, user: str, told: Told, clock: Any) -> None:
    """A bit of everything that writes."""

    def new(**values: Any) -> NewJob:
        return NewJob(user, "dots", "dots-1", {}, "pgm", "dots", **values)

    told.jobs.append(store.submit(new(idempotency_key="one", request_sha256="x"))[0].id)
    told.jobs += [job.id for job in store.submit_many([new(), new(priority=5), new(deadline=clock() + 40)])]
    chain = [new(name="a"), new(name="b", parents=[Edge("a", "image")]), new(name="c", parents=[Edge("b", "image")])]
    told.jobs += [job.id for job in store.submit_group(NewGroup(user, chain, "", "two", "x"))[1]]
    for pool, last in store.pending_hints().items():
        store.hinted(pool, last)
    first, second, third, fourth = store.claim("old", "w", POOLS, 4, 30.0)
    store.start(first.lease, second.lease, third.lease, fourth.lease)
    store.progress([Move(first.lease, "step", 1, 2, 30.0), Move(second.lease, "step", 1, 2, 30.0)])
    store.save(first.lease, "c" * 64)
    store.renew([third.lease], 30.0)
    store.charge({first.id: 1.0, second.id: 2.0})
    store.committing(first.lease, second.lease)
    store.commit_many([Done(first.lease, [FILE]), Done(second.lease, [FILE])])
    told.ended |= {first.id: JobState.SUCCEEDED, second.id: JobState.SUCCEEDED}
    store.fail(third.lease, "error", "may pass")
    store.release(fourth.lease)
    clock.now += 1
    store.promote()
    (held,) = store.claim("old", "w", POOLS, 1, 30.0)
    store.cancel(held.id, user)
    store.cancelled(held.lease)
    told.ended[held.id] = JobState.CANCELLED
    told.jobs.append(store.retry(held.id, user).id)
    store.claim("old", "w", POOLS, 2, 30.0)
    store.crashed("old", [], "killed")
    store.claim("old", "w", POOLS, 1, 30.0)
    store.pools.set("dots", "pause")
    store.pools.set("dots", "resume")


def go_on(store: JobStore, user: str, clock: Any) -> None:
    """Another process takes over, and ends everything."""
    if store.pools.all() and store.pools.all()[0].state == "paused":
        store.pools.set("dots", "resume")
    for _ in range(30):
        clock.now += 31
        store.expire_leases()
        store.promote()
        for job in store.claim("new", "w", POOLS, 10, 30.0):
            store.start(job.lease)
            store.committing(job.lease)
            store.commit(job.lease, [FILE])
        if all(job.state.terminal for job in store.list(user, limit=200)):
            return
    raise AssertionError([(job.id, job.state) for job in store.list(user, limit=200)])


def judge(store: JobStore, user: str, told: Told) -> None:
    jobs = {job.id: job for job in store.list(user, limit=200)}
    assert set(told.jobs) <= set(jobs), "an acknowledged submit is durable"
    assert {job_id: jobs[job_id].state for job_id in told.ended} == told.ended, "an end that was told stays"
    artifacts = store.artifacts(jobs)
    for job in jobs.values():
        events = store.events(job.id)
        assert [event.number for event in events] == list(range(1, len(events) + 1)), "no event is lost or doubled"
        assert [event.state for event in events if event.state.terminal] == [job.state], "one end"
        assert len(artifacts[job.id]) == (job.state is JobState.SUCCEEDED), "at most one result"
        for edge in store.parents([job.id])[job.id]:
            made = [artifact.id for artifact in artifacts[edge.parent]]
            if job.state is JobState.SUCCEEDED:
                assert job.parameters["image"] == made[0], "a child has what its parent made"
    assert len([job for job in jobs.values() if job.name]) in (0, 3, 4, 5, 6), "a group is there whole or not at all"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_any_commit_costs_no_promise(store_url: str, when: str, make_clock: Callable[[], Any]) -> None:
    at, commits = 0, 1
    while at <= commits:  # number 0 is nobody's: the story is told whole, and its commits are counted
        clock, told = make_clock(), Told()
        store = JobStore(store_url, clock=clock)
        with store.database.engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
        user = store.people.add("ann").id
        with dying(store, at, when) as seen:
            try:
                story(store, user, told, clock)
                assert at == 0
                commits = seen[0]
            except Died:
                assert at > 0
        held = [(job.lease, job.state) for job in store.list(user, limit=200) if job.owner]
        store.close()
        after = JobStore(store_url, clock=clock)
        again = after.submit(
            NewJob(user, "dots", "dots-1", {}, "pgm", "dots", idempotency_key="one", request_sha256="x")
        )[0]
        assert again.id in told.jobs or not told.jobs, "the person sends it again, and it is one job"
        go_on(after, user, clock)
        judge(after, user, told)
        for lease, _ in held:
            with pytest.raises((StaleLease, Conflict)):
                after.commit(lease, [FILE])
        judge(after, user, told)
        after.close()
        at += 1
    assert commits >= 25
