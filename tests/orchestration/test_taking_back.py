"""Leases that ran out: taken back when their holder is gone, not when the store kept the holder from renewing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from perrin_orchestration.store import Job, JobStore, NewJob

New = Callable[..., NewJob]


def lapsed(store: JobStore, new: New, clock: Any) -> Job:
    store.submit(new())
    (job,) = store.claim("one", "w", ["dots"], 1, 30.0)
    clock.now += 31
    return job


@contextmanager
def held_for(store: JobStore, seconds: float, statements: tuple[str, ...]) -> Iterator[threading.Event]:
    """Another connection keeps a lock for a while, or until the event is set that this gives: it is, from then on."""
    engine = sa.create_engine(store.database.engine.url, isolation_level="AUTOCOMMIT")
    locked, over = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            locked.set()
            over.wait(seconds)
            over.set()
            connection.exec_driver_sql("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    yield over
    thread.join()
    engine.dispose()


def everything(store: JobStore) -> tuple[str, ...]:
    return (
        ("BEGIN IMMEDIATE",) if store.database.dialect == "sqlite" else ("BEGIN", "LOCK TABLE jobs IN EXCLUSIVE MODE")
    )


def test_who_was_kept_waiting_takes_nothing(store: JobStore, new: New, clock: Any) -> None:
    job = lapsed(store, new, clock)
    with held_for(store, 1.5, everything(store)):
        assert store.expire_leases(within=0.1) == ()
    assert store.get(job.id).owner == "one"
    store.release(job.lease)
    assert (store.get(job.id).crashes, store.get(job.id).state) == (0, "queued")


def test_who_was_not_kept_waiting_does(store: JobStore, new: New, clock: Any) -> None:
    job = lapsed(store, new, clock)
    (back,) = store.expire_leases(within=60.0)
    assert (back.id, back.crashes, back.state) == (job.id, 1, "queued")


def test_a_job_that_its_holder_is_just_writing_is_left_alone(
    postgres_migrated: str, make_clock: Callable[[], Any]
) -> None:
    clock = make_clock()
    store = JobStore(postgres_migrated, clock=clock)
    ann = store.people.add("ann")

    def new() -> NewJob:
        return NewJob(ann.id, "dots", "dots-1", {}, "pgm", "dots")

    first, second = lapsed(store, new, clock), lapsed(store, new, clock)
    statements = ("BEGIN", f"UPDATE jobs SET done = 1 WHERE id = '{first.id}'")
    with held_for(store, 60.0, statements) as over:
        assert [job.id for job in store.expire_leases()] == [second.id]
        assert not over.is_set(), "it waited for nobody"
        over.set()
    assert [job.id for job in store.expire_leases()] == [first.id]
    store.close()


def test_a_holder_that_a_lock_kept_waiting_gets_a_moment(store: JobStore, new: New, clock: Any) -> None:
    """What the supervisor does: a lapsed lease is looked at twice, and the first look waits for the lock."""
    first, second = lapsed(store, new, clock), lapsed(store, new, clock)
    with held_for(store, 0.5, everything(store)) as over:
        assert set(store.lapsed()) == {first.lease, second.lease}
        assert over.is_set(), "it saw them when they could be written"
    assert store.expire_leases(sure=[]) == ()
    store.renew([first.lease], 30.0)
    assert store.lapsed() == (second.lease,)
    (back,) = store.expire_leases(sure=[first.lease, second.lease])
    assert (back.id, back.crashes) == (second.id, 1)
    assert store.get(first.id).owner == "one"
    assert store.lapsed() == ()
