"""Writes of several threads share a transaction, and none pays for another's mistake."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    commit, commits = dialect.do_commit, []

    def counted(connection: object) -> None:
        commits.append(connection)
        commit(connection)

    def hold(_connection: object) -> None:
        begun.set()
        go.wait(60)

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(store.database.write, hold)
        begun.wait(60)
        dialect.do_commit = counted
        others = [threads.submit(store.submit, new()) for _ in range(6)]
        while len(store.database._calls) < 6:
            assert not any(other.done() for other in others)
        go.set()
        first.result()
        jobs = {other.result()[0].id for other in others}
    dialect.do_commit = commit
    assert len(jobs) == store.queued() == 6
    assert len(commits) == 2, "one for the write that held the others up, one for all of those"


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
