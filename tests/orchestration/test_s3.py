"""S3 in earnest: a server over a socket that is missing a bucket, refuses, falls silent, dies and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.proxy import Proxy
from s3 import BUCKET, S3Server

from perrin.errors import StorageAway, StorageError
from perrin_orchestration.artifacts import ArtifactStore, objects
from perrin_orchestration.store import LeaseRef

LEASE = LeaseRef("a" * 32, 2, "o")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    made = S3Server(tmp_path / "s3")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    made.start()
    yield made
    made.kill()


def line(error: pytest.ExceptionInfo[StorageError]) -> str:
    text = error.value.message
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_a_bucket_that_is_missing_or_closed_is_said_at_once(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ArtifactStore(f"s3://{BUCKET}/prefix").check()
    nowhere = ArtifactStore("s3://nowhere/prefix")
    for attempt in (nowhere.check, lambda: nowhere.stage(LEASE, 0, b"x"), lambda: nowhere.read("0" * 64)):
        with pytest.raises(StorageError, match="bucket nowhere does not exist: make it, or correct PERRIN_ART") as no:
            attempt()
        line(no)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    stranger = ArtifactStore(f"s3://{BUCKET}")
    for attempt in (stranger.check, lambda: stranger.stage(LEASE, 0, b"x"), lambda: stranger.read("0" * 64)):
        with pytest.raises(StorageError, match="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY") as no:
            attempt()
        line(no)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StorageError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as no:
        ArtifactStore(f"s3://{BUCKET}").check()
    line(no)


def test_a_server_that_is_away_is_told_from_a_refusal_and_is_not_asked_for_what_can_wait(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "AWAY_SECONDS", 60.0)
    store = ArtifactStore(f"s3://{BUCKET}/p")
    kept = store.keep(b"dots")
    server.kill()
    with pytest.raises(StorageAway, match="does not answer") as away:
        store.read(kept.sha256)
    line(away)
    began = time.monotonic()
    for attempt in (lambda: store.put_preview(LEASE, b"png"), lambda: store.put_state(LEASE, b"x"), store.check_ready):
        with pytest.raises(StorageAway, match="did not answer a moment ago"):
            attempt()
    assert time.monotonic() - began < 2.0, "nobody was asked"
    with pytest.raises(StorageAway):
        store.stage(LEASE, 0, b"the result of an hour")
    server.start()
    assert store.read(kept.sha256) == b"dots"
    store.check_ready()
    store.put_preview(LEASE, b"png")


def test_a_server_that_falls_silent_holds_nobody_for_long(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ArtifactStore(f"s3://{BUCKET}/p").keep(b"dots")
    monkeypatch.setattr(objects, "CALL_SECONDS", 1.0)
    monkeypatch.setattr(objects, "CONFIG", objects.CONFIG | {"read_timeout": 1, "retries": {"max_attempts": 1}})
    store = ArtifactStore(f"s3://{BUCKET}/p")
    server.suspend()
    for attempt in (lambda: store.stage(LEASE, 0, b"x" * 100), lambda: store.read(kept.sha256), store.check):
        began = time.monotonic()
        with pytest.raises(StorageAway, match="does not answer") as away:
            attempt()
        line(away)
        assert time.monotonic() - began < 30
    server.resume()
    monkeypatch.setattr(objects, "CALL_SECONDS", 20.0)
    end = time.monotonic() + 120
    while True:  # it may take more than the second that is allowed here
        try:
            assert store.read(kept.sha256) == b"dots"
            return
        except StorageAway:
            assert time.monotonic() < end


def test_a_body_that_breaks_off_is_read_again(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 400
    kept = ArtifactStore(f"s3://{BUCKET}/p").keep(data)
    between = Proxy(server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{between.port}")
    store = ArtifactStore(f"s3://{BUCKET}/p")
    between.breaks = objects.BODIES - 1
    assert store.read(kept.sha256) == data
    assert between.breaks == 0
    between.breaks = objects.BODIES
    with pytest.raises(StorageAway, match="does not answer") as away:
        store.read(kept.sha256)
    line(away)
    assert between.breaks == 0
    between.close()


def test_what_another_process_changed_is_seen_at_once(server: S3Server) -> None:
    one, other = ArtifactStore(f"s3://{BUCKET}/p"), ArtifactStore(f"s3://{BUCKET}/p")
    assert one.page("blobs/") == []
    kept = other.keep(b"dots")
    assert [item.name for item in one.page("blobs/")] == [kept.sha256]
    assert one.read(kept.sha256) == b"dots"
    other.drop(other.page("blobs/"))
    assert one.page("blobs/") == []
    with pytest.raises(StorageError, match="is gone"):
        one.read(kept.sha256)


def test_large_bytes_go_in_parts_and_parts_that_were_never_finished_are_removed(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART", 5 << 20)
    store = ArtifactStore(f"s3://{BUCKET}/p")
    data, told = bytes(range(256)) * (12 << 12), []
    kept = store.stage(LEASE, 0, data, lambda: told.append("up"))
    assert store.read(kept.sha256, lambda: told.append("down")) == data
    assert told.count("up") == 3
    assert told.count("down") >= 3
    place = store._place
    assert isinstance(place, objects.Objects)
    begun = place._call("create_multipart_upload", Key="p/blobs/never")
    place._call("upload_part", Key="p/blobs/never", UploadId=begun["UploadId"], PartNumber=1, Body=b"x" * 1000)
    assert [item.name for item in store.page("blobs/")] == [kept.sha256]
    assert store.tidy() == 0, "its writer may be at it"
    assert ArtifactStore(f"s3://{BUCKET}/p", clock=lambda: time.time() + 90000).tidy() == 1
    assert store.tidy() == 0


def test_an_upload_in_parts_that_fails_leaves_nothing(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PART", 5 << 20)
    store = ArtifactStore(f"s3://{BUCKET}/p")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.stage(LEASE, 0, b"x" * (12 << 20), interrupt)
    assert server.keys == []
    assert ArtifactStore(f"s3://{BUCKET}/p", clock=lambda: time.time() + 90000).tidy() == 0


def test_bytes_taken_for_nobodys_can_be_read_and_put_back(server: S3Server) -> None:
    now = time.time()
    store = ArtifactStore(f"s3://{BUCKET}/p", clock=lambda: now)
    kept = store.keep(b"dots")
    now += 4000
    assert store.remove(kept.sha256)
    assert [item.key for item in store.page("")] == [f"removed/{kept.sha256}"]
    assert store.read(kept.sha256) == b"dots"
    store.put_back(kept.sha256)
    assert [item.name for item in store.page("blobs/")] == [kept.sha256]
