"""Leases that ran out: taken back when their holder is gone, not when the store kept the holder from renewing."""

from __future__ import annotations

import threading
import time
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
def held_for(store: JobStore, seconds: float, statements: tuple[str, ...]) -> Iterator[None]:
    """Another connection keeps a lock for a while."""
    engine = sa.create_engine(store.database.engine.url, isolation_level="AUTOCOMMIT")
    locked = threading.Event()

    def hold() -> None:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            locked.set()
            time.sleep(seconds)
            connection.exec_driver_sql("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    yield
    thread.join()
    engine.dispose()


def everything(store: JobStore) -> tuple[str, ...]:
    return (
        ("BEGIN IMMEDIATE",) if store.database.dialect == "sqlite" else ("BEGIN", "LOCK TABLE jobs IN EXCLUSIVE MODE")
    )


def test_who_was_kept_waiting_takes_nothing(store: JobStore, new: New, clock: Any) -> None:
    job = lapsed(store, new, clock)
    with held_for(store, 1.0, everything(store)):
        assert store.expire_leases(within=0.5) == ()
    assert store.get(job.id).owner == "one"
    store.release(job.lease)
    assert (store.get(job.id).crashes, store.get(job.id).state) == (0, "queued")


def test_who_was_not_kept_waiting_does(store: JobStore, new: New, clock: Any) -> None:
    job = lapsed(store, new, clock)
    (back,) = store.expire_leases(within=5.0)
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
    began = time.monotonic()
    with held_for(store, 1.5, statements):
        assert [job.id for job in store.expire_leases()] == [second.id]
        assert time.monotonic() - began < 1.0, "it waited for nobody"
    assert [job.id for job in store.expire_leases()] == [first.id]
    store.close()


def test_a_holder_that_a_lock_kept_waiting_gets_a_moment(store: JobStore, new: New, clock: Any) -> None:
    """What the supervisor does: a lapsed lease is looked at twice, and the first look waits for the lock."""
    first, second = lapsed(store, new, clock), lapsed(store, new, clock)
    with held_for(store, 0.5, everything(store)):
        began = time.monotonic()
        assert set(store.lapsed()) == {first.lease, second.lease}
        assert time.monotonic() - began > 0.3, "it saw them when they could be written"
    assert store.expire_leases(sure=[]) == ()
    store.renew([first.lease], 30.0)
    assert store.lapsed() == (second.lease,)
    (back,) = store.expire_leases(sure=[first.lease, second.lease])
    assert (back.id, back.crashes) == (second.id, 1)
    assert store.get(first.id).owner == "one"
    assert store.lapsed() == ()
