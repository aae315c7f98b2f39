"""Writes of several threads share a transaction, and none pays for another's mistake."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import NoneType
from typing import Any

import pytest

from perrin.errors import Conflict
from perrin_orchestration.store import JobStore, NewJob, User
from perrin_orchestration.store.database import execute

New = Callable[..., NewJob]


def test_writes_that_wait_share_one_transaction(store: JobStore, new: New) -> None:
    """The first write is held up until the others have queued up behind it."""
    if store.database.dialect != "sqlite":
        pytest.skip("PostgreSQL does this by itself")
    begun, go = threading.Event(), threading.Event()
    dialect: Any = store.database.engine.dialect
    commit, commits, taken = dialect.do_commit, [], list[Any]()
    round_ = store._gather._round

    def counted(connection: object) -> None:
        commits.append(connection)
        commit(connection)

    def counted_round(calls: Any) -> None:
        taken.extend(calls)
        round_(calls)

    def hold(_connection: object) -> None:
        begun.set()
        go.wait(60)

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(store.database.write, hold)
        begun.wait(60)
        dialect.do_commit, store._gather._round = counted, counted_round  # type: ignore[method-assign]
        others = [threads.submit(store.submit, new()) for _ in range(6)]
        # Whoever came first may have found others there already, and has taken them along.
        while not store.database._gather.waiting or len(taken) + store._gather.waiting < 6:
            assert not any(other.done() for other in others)
            time.sleep(0.001)
        go.set()
        first.result()
        jobs = {other.result()[0].id for other in others}
    dialect.do_commit = commit
    assert len(jobs) == store.queued() == 6
    assert len(commits) <= 3, "one for the write that held the others up, one for who came first, one for the rest"


def test_jobs_that_come_together_are_one_transaction_and_each_gets_its_own_answer(store: JobStore, new: New) -> None:
    """They wait behind a round that is held up; one's key was used before, two share a key, one's pool drains."""
    known = store.submit(new(idempotency_key="known", request_sha256="a"))[0]
    store.submit(new(pool="closing"))
    store.pools.set("closing", "drain")
    asked = [
        new(idempotency_key="known", request_sha256="a"),
        new(idempotency_key="known", request_sha256="b"),
        new(idempotency_key="twice", request_sha256="c"),
        new(idempotency_key="twice", request_sha256="c"),
        new(pool="closing"),
        *[new() for _ in range(5)],
    ]
    with ThreadPoolExecutor(16) as threads:
        with store._gather._turn:
            found = [threads.submit(store.submit, job) for job in asked]
            while store._gather.waiting < len(asked):
                assert not any(one.done() for one in found)
                time.sleep(0.001)
        errors = [one.exception(60) for one in found]
    assert [type(error) for error in errors] == [NoneType, Conflict, NoneType, NoneType, Conflict, *[NoneType] * 5]
    assert found[0].result() == (known, False)
    assert found[2].result()[0].id == found[3].result()[0].id
    assert sorted([found[2].result()[1], found[3].result()[1]]) == [False, True]
    assert all(one.result()[1] for one in found[5:])
    assert len({one.result()[0].id for one in found[5:]}) == 5


def test_one_that_fails_takes_back_itself_alone(store: JobStore, new: New, ann: User) -> None:
    job = store.submit(new())[0]
    store.cancel(job.id, ann.id)

    def broken(connection: Any) -> None:
        execute(connection, "UPDATE users SET share = 7", {})
        raise Conflict("no")

    def attempt(number: int) -> object:
        if number % 3 == 0:
            return store.submit(new())[0].id
        try:
            store.database.write(broken) if number % 3 == 1 else store.cancel(job.id, ann.id)
        except Conflict as refused:
            return refused.message
        raise AssertionError

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(attempt, range(60)))
    assert found[1::3] == ["no"] * 20
    assert store.queued() == 20
    assert [account.share for account in store.people.accounts()] == [1.0]
