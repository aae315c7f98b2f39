"""A job's end that cannot be written is kept, and written as soon as the store can be written again."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from perrin.engine import Engine
from perrin.errors import Unreachable
from perrin.settings import Settings
from perrin.wire import JobState
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.channel import Channel
from perrin_orchestration.engine_process import EngineProcess, Identity
from perrin_orchestration.store import Job, JobStore, LeaseRef, NewJob

PATIENCE = 0.3
LOCK = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN; LOCK TABLE jobs IN EXCLUSIVE MODE"}


@pytest.fixture
def store(store_url: str) -> Iterator[JobStore]:
    made = JobStore(store_url, patience=PATIENCE)
    yield made
    made.close()


@pytest.fixture
def told(dots: Path, store: JobStore, tmp_path: Path) -> Iterator[Channel]:
    """What an engine process is told by; this test is its supervisor."""
    ours, theirs = socket.socketpair()
    settings = Settings(home=tmp_path, lease_seconds=60, save_seconds=600, min_free_mb=1)
    artifacts = ArtifactStore(settings.artifacts_path, settings.min_free_mb)
    who = Identity("an engine", "a worker", ("dots",))
    process = EngineProcess(who, Channel(theirs), Engine("cpu"), store, artifacts, settings)
    thread = threading.Thread(target=process.run)
    thread.start()
    yield Channel(ours)
    ours.close()
    thread.join(60)
    theirs.close()
    assert not thread.is_alive()


@pytest.fixture
def refused(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a job's end was tried to be written, and could not be."""
    told, committing = threading.Event(), store.committing

    def tried(*leases: LeaseRef) -> None:
        try:
            committing(*leases)
        except Unreachable:
            told.set()
            raise

    monkeypatch.setattr(store, "committing", tried)
    return told


def submitted(store: JobStore, steps: int) -> Job:
    user = store.people.add("ann")
    wanted = {"model": "dots-1", "seed": 1, "steps": steps, "delay": 0.02, "radius": 3}
    return store.submit(NewJob(user.id, "dots", "dots-1", wanted, "pgm", pool="dots"))[0]


def hear(told: Channel, kind: str, seconds: float = 120.0) -> dict[str, object]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for message in told.receive(0.1):
            if message["is"] == kind:
                return message
    raise AssertionError(f"no word of {kind!r} in {seconds:g} s")


def locked(store_url: str, store: JobStore) -> sa.Connection:
    """A connection that keeps everybody from writing."""
    url = store_url.replace("postgresql://", "postgresql+psycopg://")
    connection = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect()
    for statement in LOCK[store.database.dialect].split("; "):
        connection.exec_driver_sql(statement)
    return connection


def test_an_end_is_written_when_the_store_is_back(
    store: JobStore, store_url: str, told: Channel, refused: threading.Event
) -> None:
    job = submitted(store, steps=20)
    assert hear(told, "claimed")["id"] == job.id
    hear(told, "progress")
    lock = locked(store_url, store)
    assert refused.wait(120)
    assert store.get(job.id).state is not JobState.SUCCEEDED
    lock.exec_driver_sql("ROLLBACK")
    lock.close()
    assert hear(told, "ended")["id"] == job.id
    ended = store.get(job.id)
    assert (ended.state, ended.attempts, ended.crashes) == (JobState.SUCCEEDED, 1, 0)


def test_an_end_is_forgotten_with_its_lease(
    store: JobStore, store_url: str, told: Channel, refused: threading.Event
) -> None:
    job = submitted(store, steps=20)
    assert hear(told, "claimed")["id"] == job.id
    hear(told, "progress")
    lock = locked(store_url, store)
    assert refused.wait(120)
    told.send({"do": "abandon", "id": job.id, "epoch": 1})
    assert hear(told, "lost")["id"] == job.id
    lock.exec_driver_sql("ROLLBACK")
    lock.close()
    time.sleep(1.5)
    assert store.get(job.id).state in {JobState.LEASED, JobState.RUNNING}, "its end was not its own to write"


def test_a_store_that_goes_away_just_after_a_claim_costs_the_job_nothing(
    store: JobStore, told: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, away = store.start, iter([True])

    def started(lease: LeaseRef) -> None:
        if next(away, False):
            raise Unreachable("the job store does not answer")
        start(lease)

    monkeypatch.setattr(store, "start", started)
    job = submitted(store, steps=3)
    end = time.monotonic() + 120
    while not (now := store.get(job.id)).state.terminal:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert (now.state, now.epoch, now.retries, now.crashes) == (JobState.SUCCEEDED, 2, 0, 0)
    assert any(event.message == "released by its worker" for event in store.events(job.id))
