"""A commit goes through and its answer is lost: the transaction runs again, and finds that it has happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from perrin.errors import Conflict
from perrin_orchestration.store import Done, Job, JobStore, NewArtifact, NewGroup, NewJob, User

FILE = NewArtifact("0.pgm", "image/x-portable-graymap", 5, "a" * 64, (0,), {})

New = Callable[..., NewJob]


@contextmanager
def losing_a_reply(store: JobStore) -> Iterator[None]:
    """The next commit is made, and then the connection seems to break."""
    dialect: Any = store.database.engine.dialect
    commit, lost = dialect.do_commit, []

    def once(connection: object) -> None:
        commit(connection)
        if not lost:
            lost.append(True)
            raise _broken(store)

    dialect.do_commit = once
    try:
        yield
    finally:
        dialect.do_commit = commit
    assert lost


def _broken(store: JobStore) -> Exception:
    if store.database.dialect != "sqlite":
        return psycopg.OperationalError("server closed the connection unexpectedly")
    error = sqlite3.OperationalError("as if the answer were lost")
    error.sqlite_errorname = "SQLITE_BUSY"
    return error


def claim(store: JobStore) -> Job:
    (job,) = store.claim("one", "w", ["dots"], 1, 30.0)
    return job


def numbers(store: JobStore, job_id: str) -> list[int]:
    return [event.number for event in store.events(job_id)]


def test_a_submit_makes_one_job(store: JobStore, new: New, ann: User) -> None:
    with losing_a_reply(store):
        job, fresh = store.submit(new(idempotency_key="k", request_sha256="x"))
    assert fresh
    with losing_a_reply(store):
        group, jobs, _ = store.submit_group(NewGroup(ann.id, [new(), new()], "", "g", "x"))
    assert {found.id for found in store.list(ann.id)} == {job.id, *(one.id for one in jobs)}
    with losing_a_reply(store):
        assert store.cancel_group(group.id, ann.id) == 2
    with pytest.raises(Conflict, match="asked to stop already"):
        store.cancel_group(group.id, ann.id)


def test_a_claim_takes_what_it_took(store: JobStore, new: New) -> None:
    for _ in range(4):
        store.submit(new())
    with losing_a_reply(store):
        taken = store.claim("one", "w", ["dots"], 2, 30.0)
    assert [job.epoch for job in taken] == [1, 1]
    assert store.claim("two", "w", ["dots"], 4, 30.0)[0].id not in {job.id for job in taken}
    assert store.queued_pools() == ()


def test_a_holder_keeps_its_job_through_every_transition(store: JobStore, new: New) -> None:
    store.submit(new())
    job = claim(store)
    for write in (store.start, store.committing):
        with losing_a_reply(store):
            write(job.lease)
    with losing_a_reply(store):
        store.commit_many([Done(job.lease, [FILE])])
    assert store.get(job.id).state == "succeeded"
    assert len(store.artifacts([job.id])[job.id]) == 1
    assert numbers(store, job.id) == [1, 2, 3, 4, 5]


def test_a_cancel_is_answered_as_what_it_did(store: JobStore, new: New, ann: User) -> None:
    queued, held = store.submit(new())[0], store.submit(new(priority=5))[0]
    assert claim(store).id == held.id
    for job in (queued, held):
        with losing_a_reply(store):
            assert store.cancel(job.id, ann.id).cancel_requested
        with pytest.raises(Conflict):
            store.cancel(job.id, ann.id)
    assert numbers(store, queued.id) == [1, 2]


def test_a_retry_by_hand_makes_one_job(store: JobStore, new: New, ann: User) -> None:
    job = store.submit(new())[0]
    store.cancel(job.id, ann.id)
    with losing_a_reply(store):
        again = store.retry(job.id, ann.id)
    assert [found.id for found in store.list(ann.id)] == [again.id, job.id]
