"""Rows and bytes go together: the old is deleted, the used stays, strays are swept; in folders and on S3."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from s3 import BUCKET, S3Server

from perrin.errors import Conflict, NotFound, StorageError
from perrin.settings import Settings
from perrin_orchestration import retention
from perrin_orchestration.artifacts import YOUNG_SECONDS, ArtifactStore
from perrin_orchestration.retention import Housekeeper, Sweeper, clean
from perrin_orchestration.store import Job, JobStore, LeaseRef, NewArtifact, NewJob
from perrin_orchestration.store.database import Database

New = Callable[..., NewJob]


@dataclass
class Files:
    """Artifacts in a folder or a bucket, on a clock that can be moved."""

    url: str
    ahead: float = 0.0

    def __post_init__(self) -> None:
        self.store = ArtifactStore(self.url, clock=lambda: time.time() + self.ahead)

    def later(self) -> None:
        self.ahead += YOUNG_SECONDS + 60

    @property
    def keys(self) -> set[str]:
        parts = ("staging/", "blobs/", "states/", "previews/", "removed/")
        return {item.key for part in parts for item in self.store.page(part)}


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    if request.param == "folder":
        yield Files(str(tmp_path / "artifacts"))
        return
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield Files(f"s3://{BUCKET}/{tmp_path.name}")


def held(store: JobStore, new: New) -> Job:
    store.submit(new())
    (job,) = store.claim("o", "w", ["dots"], 1, 30.0)
    store.start(job.lease)
    return job


def made(store: JobStore, artifacts: ArtifactStore, new: New, data: bytes) -> Job:
    job = held(store, new)
    store.committing(job.lease)
    staged = artifacts.stage(job.lease, 0, data)
    artifacts.publish(staged)
    store.charge({job.id: 1.0}, {job.id: 50.0})
    store.commit(job.lease, [NewArtifact("0.pgm", "m", staged.size, staged.sha256, (0,), {})])
    return store.get(job.id)


def sha256(store: JobStore, job: Job) -> str:
    return store.artifacts([job.id])[job.id][0].sha256


def test_old_jobs_go_with_the_bytes_that_are_theirs_alone(
    store: JobStore, new: New, clock: Any, files: Files, tmp_path: Path
) -> None:
    settings, artifacts = Settings(home=tmp_path, keep_days=5), files.store
    old, shared = made(store, artifacts, new, b"mine"), made(store, artifacts, new, b"ours")
    mine = sha256(store, old)
    clock.now += 6 * 86400
    young = made(store, artifacts, new, b"ours")
    files.later()
    assert clean(store, artifacts, Settings(home=tmp_path)) == 0, "0 days is for ever"
    assert clean(store, artifacts, settings) == 2
    assert clean(store, artifacts, settings) == 0
    for gone in (old, shared):
        with pytest.raises(NotFound):
            store.get(gone.id)
    files.later()
    Sweeper(store, artifacts).all()
    with pytest.raises(StorageError, match="is gone"):
        artifacts.read(mine)
    assert artifacts.read(sha256(store, young)) == b"ours"


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_strays_of_every_kind_are_swept_and_what_belongs_to_a_job_is_not(
    store: JobStore, new: New, files: Files, page: int
) -> None:
    artifacts = files.store
    done, live = made(store, artifacts, new, b"result"), held(store, new)
    live_state = artifacts.put_state(live.lease, b"row 2")
    store.save(live.lease, live_state)
    artifacts.put_preview(live.lease, b"png")
    artifacts.stage(live.lease, 0, b"half written")
    kept = files.keys
    attempt = LeaseRef(live.id, live.epoch + 1, "somebody who lost it")
    nobody = LeaseRef("f" * 32, 1, "of a job that was deleted")
    for lease in (attempt, nobody, done.lease):
        artifacts.put_preview(lease, b"png")
        artifacts.stage(lease, 0, b"left over")
    for lease in (nobody, done.lease):
        artifacts.put_state(lease, b"row 1")
    between = artifacts.put_state(live.lease, b"row 3, saved and not yet written down")
    artifacts.publish(artifacts.stage(done.lease, 9, b"stray"))
    sweeper = Sweeper(store, artifacts, page)
    sweeper.all()
    young = {key for key in files.keys - kept if not key.startswith("blobs/")}
    assert young == {f"states/{live.id}/{between}"}
    assert kept <= files.keys
    files.later()
    sweeper.all()
    files.later()
    sweeper.all()
    assert files.keys == {key for key in kept if not key.startswith("blobs/") or key.endswith(sha256(store, done))}
    assert artifacts.state(live.id, live_state) == b"row 2"
    assert artifacts.preview(live.id, live.epoch) == b"png"


def test_a_little_at_a_time_comes_to_the_end_and_begins_again(store: JobStore, files: Files) -> None:
    for number in range(7):
        files.store.put_preview(LeaseRef(f"{number:032x}", 1, "o"), b"png")
    sweeper = Sweeper(store, files.store, 3)
    assert [sweeper.some() for _ in range(4)] == [3, 3, 1, 0]
    files.store.put_preview(LeaseRef("0" * 32, 1, "o"), b"png")
    assert sweeper.some() == 1


def test_bytes_that_a_row_names_after_all_come_back(
    store: JobStore, new: New, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer put its bytes before they were removed, and its row was written after."""
    artifacts = files.store
    artifacts.keep(b"dots")
    files.later()
    asked = store.keeper.in_use

    def named_a_moment_later(hashes: Any) -> frozenset[str]:
        found = asked(hashes)
        if not jobs:
            jobs.append(made(store, artifacts, new, b"dots"))
        return found

    jobs: list[Job] = []
    monkeypatch.setattr(store.keeper, "in_use", named_a_moment_later)
    if not files.url.startswith("s3"):
        os.utime(Path(files.url) / next(iter(files.keys)), (0, 0))
    sweeper = Sweeper(store, artifacts)
    for _ in range(3):
        sweeper.all()
        assert artifacts.read(sha256(store, jobs[0])) == b"dots"
        files.later()
    assert files.keys == {next(key for key in files.keys if key.startswith("blobs/"))}


def test_another_stores_artifacts_are_left_alone(
    store: JobStore, new: New, files: Files, sqlite_template: Path, tmp_path: Path
) -> None:
    mine = made(store, files.store, new, b"mine")
    Sweeper(store, files.store).all()
    shutil.copy(sqlite_template, tmp_path / "other.db")
    database = Database(f"sqlite:///{tmp_path / 'other.db'}")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE store SET id = 'another'")
    database.close()
    other = JobStore(f"sqlite:///{tmp_path / 'other.db'}")
    files.later()
    for attempt in (
        Sweeper(other, files.store).all,
        Sweeper(other, files.store).some,
        lambda: clean(other, files.store, Settings(home=tmp_path, keep_days=1)),
    ):
        with pytest.raises(Conflict, match="belong to another job store, so nothing is removed"):
            attempt()
    other.close()
    assert files.store.read(sha256(store, mine)) == b"mine"
    assert Sweeper(store, files.store).all() == 0


def test_the_housekeeper_does_what_it_is_told_without_holding_anybody_up(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{sqlite_template}")
    house = Housekeeper(settings)
    artifacts, lease, gate = ArtifactStore(settings.artifacts_path), LeaseRef("a" * 32, 2, "o"), threading.Event()
    artifacts.put_preview(lease, b"png")
    artifacts.stage(lease, 0, b"dots")
    discard = house._artifacts.discard
    monkeypatch.setattr(house._artifacts, "discard", lambda lease: (gate.wait(60), discard(lease)))
    house.start()
    began = time.monotonic()
    house.discard(lease)
    house.forget(lease.id)
    assert time.monotonic() - began < 30
    assert artifacts.preview(lease.id, 2) == b"png"
    gate.set()
    house.stop()
    assert not house.is_alive()
    assert [artifacts.page(part) for part in ("staging/", "previews/")] == [[], []]


def test_a_worker_cleans_up_by_itself(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CLEAN_SECONDS", 0.1)
    shutil.copy(sqlite_template, tmp_path / "perrin.db")
    settings = Settings(home=tmp_path)
    artifacts = ArtifactStore(settings.artifacts_path)
    house = Housekeeper(settings)
    house.start()
    for number in range(3):
        artifacts.put_state(LeaseRef(f"{number:032x}", 1, "o"), b"of a job that is gone")
        end = time.monotonic() + 60
        while artifacts.page("states/"):
            assert time.monotonic() < end
            time.sleep(0.02)
    house.stop()
    assert not house.is_alive()
