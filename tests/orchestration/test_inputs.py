"""The files of jobs, in the store: kept while a job needs them, passed on to its retries, and gone after that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perrin.errors import InvalidInput, StorageError
from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.inputs import read_inputs
from perrin_orchestration.retention import Sweeper, clean
from perrin_orchestration.store import Edge, Job, JobStore, NewArtifact, NewJob, User
from perrin_orchestration.store.keeping import UPLOAD_DAYS

New = Callable[..., NewJob]
DAY = 86400.0
PGM = "image/x-portable-graymap"


@pytest.fixture
def artifacts(tmp_path: Path, clock: Any) -> ArtifactStore:
    """On the store's clock, which is far ahead of the files' own: all of them are old."""
    return ArtifactStore(str(tmp_path / "artifacts"), clock=clock)


def give(store: JobStore, artifacts: ArtifactStore, user: User, data: bytes) -> str:
    kept = artifacts.keep(data)
    return store.keeper.upload(user.id, PGM, kept.size, kept.sha256).id


def finish(store: JobStore, artifacts: ArtifactStore, data: bytes = b"picture") -> Job:
    (job,) = store.claim("o", "w", ["dots"], 1, 30.0)
    store.start(job.lease)
    store.committing(job.lease)
    staged = artifacts.stage(job.lease, 0, data)
    artifacts.publish(staged)
    store.commit(job.lease, [NewArtifact("0.pgm", PGM, staged.size, staged.sha256, (0,), {})])
    return store.get(job.id)


def made(store: JobStore, job: Job) -> str:
    return store.artifacts([job.id])[job.id][0].id


def taking(new: New, file_id: str, **values: Any) -> NewJob:
    return new(parameters={"start": file_id}, inputs={"start": file_id}, **values)


def test_an_upload_is_kept_while_a_job_has_it_and_a_day_longer(
    store: JobStore, new: New, ann: User, clock: Any, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, keep_days=1)
    used, unused = give(store, artifacts, ann, b"used"), give(store, artifacts, ann, b"unused")
    store.submit(taking(new, used))
    clock.now += (UPLOAD_DAYS + 1) * DAY
    clean(store, artifacts, settings)
    assert set(store.files([used, unused], ann.id)) == {used}
    assert [item.name for item in artifacts.page("blobs/")] == [store.files([used], ann.id)[used].sha256]
    finish(store, artifacts)
    Sweeper(store, artifacts).all()
    assert artifacts.read(store.files([used], ann.id)[used].sha256) == b"used"
    clock.now += 2 * DAY
    assert clean(store, artifacts, settings) == 1, "the job, and with it the last use of the upload"
    clean(store, artifacts, settings)
    assert store.files([used], ann.id) == {}
    assert artifacts.page("blobs/") == []


def test_an_upload_given_again_is_young_again(store: JobStore, ann: User, clock: Any, artifacts: ArtifactStore) -> None:
    first = give(store, artifacts, ann, b"dots")
    clock.now += 0.9 * UPLOAD_DAYS * DAY
    assert give(store, artifacts, ann, b"dots") == first
    clock.now += 0.9 * UPLOAD_DAYS * DAY
    assert store.keeper.clean_uploads() == ()
    clock.now += 0.2 * UPLOAD_DAYS * DAY
    assert len(store.keeper.clean_uploads()) == 1
    assert give(store, artifacts, ann, b"dots") != first


def test_the_maker_of_an_artifact_is_kept_while_a_job_lives_that_takes_it(
    store: JobStore, new: New, ann: User, clock: Any, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, keep_days=1, keep_failed_days=1)
    store.submit(new())
    maker = finish(store, artifacts)
    taker = store.submit(taking(new, made(store, maker)))[0]
    clock.now += 3 * DAY
    assert clean(store, artifacts, settings) == 0
    assert store.get(maker.id).id == maker.id
    store.cancel(taker.id, ann.id)
    assert clean(store, artifacts, settings) == 1
    with pytest.raises(InvalidInput, match="one of your artifacts or uploads"):
        store.retry(taker.id, ann.id)


def test_a_foreign_or_unknown_file_is_refused_in_the_transaction_too(
    store: JobStore, new: New, ann: User, artifacts: ArtifactStore
) -> None:
    bob = store.people.add("bob")
    foreign = give(store, artifacts, bob, b"bob's")
    store.submit(new(user_id=bob.id))
    theirs = made(store, finish(store, artifacts))
    before = [row[:3] for row in store.counts()]
    for file_id in (foreign, theirs, "0" * 32):
        with pytest.raises(InvalidInput, match=f"start: got '{file_id}', wanted the id of one of your artifacts"):
            store.submit(taking(new, file_id))
        with pytest.raises(InvalidInput):
            store.submit_many([new(), taking(new, file_id)])
    assert [row[:3] for row in store.counts()] == before


def test_another_try_takes_the_same_files(store: JobStore, new: New, ann: User, artifacts: ArtifactStore) -> None:
    given = give(store, artifacts, ann, b"dots")
    parent = store.submit(new())[0]
    asked = new(
        parameters={"start": given, "more": ["0" * 32]},
        inputs={"start": given},
        parents=[Edge(parent.id, "more.0")],
    )
    child = store.submit(asked)[0]
    (job,) = store.claim("o", "w", ["dots"], 1, 30.0)
    store.fail(job.lease, "invalid", "no luck")
    assert store.get(child.id).error_kind == "parent"
    store.retry(parent.id, ann.id)
    maker = finish(store, artifacts)
    (again,) = store.claim("o", "w", ["dots"], 1, 30.0)
    assert (again.retry_of, again.parameters) == (child.id, {"start": given, "more": [made(store, maker)]})
    store.fail(again.lease, "invalid", "no luck")
    third = store.retry(again.id, ann.id)
    assert third.parameters == again.parameters


def test_files_are_read_and_checked_each_time_a_job_begins(
    dots: Path, store: JobStore, new: New, ann: User, artifacts: ArtifactStore
) -> None:
    given = give(store, artifacts, ann, b"dots")
    job = store.submit(taking(new, given))[0]
    file = read_inputs(job, store, artifacts)["start"]
    assert (file.data, file.media_type) == (b"dots", PGM)
    assert read_inputs(store.submit(new())[0], store, artifacts) == {}
    text = store.keeper.upload(ann.id, "text/plain", 4, artifacts.keep(b"text").sha256).id
    with pytest.raises(InvalidInput, match="this is text/plain"):
        read_inputs(store.submit(taking(new, text))[0], store, artifacts)
    path = next((Path(artifacts._place._root) / "blobs").rglob(file.sha256))  # type: ignore[attr-defined]
    path.write_bytes(b"else")
    with pytest.raises(StorageError, match="has changed"):
        read_inputs(job, store, artifacts)
    with pytest.raises(InvalidInput, match="this one was deleted"):
        read_inputs(store.submit(new(parameters={"start": "f" * 32}))[0], store, artifacts)


def test_a_file_is_either_used_or_deleted_never_both(
    store_url: str, store: JobStore, new: New, ann: User, clock: Any, artifacts: ArtifactStore
) -> None:
    """Submitting and cleaning up at once, many times: a job that was taken has its file."""
    other = JobStore(store_url, clock=clock)
    taken = refused = 0
    for number in range(30):
        given = give(store, artifacts, ann, b"%d" % number)
        clock.now += (UPLOAD_DAYS + 1) * DAY
        cleaner = threading.Thread(target=other.keeper.clean_uploads)
        cleaner.start()
        try:
            store.submit(taking(new, given))
            taken += 1
            cleaner.join()
            assert given in store.files([given], ann.id)
        except InvalidInput:
            refused += 1
            cleaner.join()
            assert store.files([given], ann.id) == {}
    other.close()
    assert taken + refused == 30
