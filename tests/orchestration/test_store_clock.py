"""Leases go by the store's own clock: a machine whose clock is wrong grants, keeps and takes them like any other."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from perrin_orchestration.store import JobStore, NewJob
from perrin_orchestration.store.clock import ASK_SECONDS, ServerClock
from perrin_orchestration.store.database import Database

HOUR = 3600.0


@pytest.fixture
def database(postgres_migrated: str) -> Iterator[Database]:
    made = Database(postgres_migrated, patience=0.1)
    yield made
    made.close()


def test_it_is_the_servers_time_whatever_this_machines_clock_says(database: Database) -> None:
    clock = ServerClock(database, local=lambda: time.time() + HOUR)
    assert abs(clock() - time.time()) < HOUR / 2  # the server runs on this machine


def test_between_two_questions_the_monotonic_clock_counts(database: Database) -> None:
    now = [100.0]
    clock = ServerClock(database, monotonic=lambda: now[0])
    first = clock()
    now[0] += ASK_SECONDS / 2
    assert clock() - first == pytest.approx(ASK_SECONDS / 2)
    now[0] += ASK_SECONDS
    assert abs(clock() - time.time()) < ASK_SECONDS, "asked again: it would be one and a half times that ahead"


def test_while_the_server_is_away_the_last_answer_counts_and_before_any_the_local_clock() -> None:
    nobody = Database("postgresql+psycopg://perrin@127.0.0.1:1/none", patience=0.1)
    assert ServerClock(nobody, local=lambda: 5.0)() == 5.0
    nobody.close()


def test_two_stores_agree_on_when_a_lease_ends(postgres_migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = JobStore(postgres_migrated)
    ann = right.people.add("ann")
    right.submit(NewJob(ann.id, "dots", "dots-1", {}, "pgm", "dots"))
    (job,) = right.claim("one", "w", ["dots"], 1, HOUR / 2)
    honest = time.time
    monkeypatch.setattr(time, "time", lambda: honest() + HOUR)
    wrong = JobStore(postgres_migrated)
    assert wrong.expire_leases() == (), "it is not an hour later in the store"
    assert right.get(job.id).owner == "one"
    right.close()
    wrong.close()
