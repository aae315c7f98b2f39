"""Artifacts: whole or not there, checked when read, refused when the disk is nearly full; in a folder and on S3."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from s3 import BUCKET, S3Server

from perrin.errors import InvalidInput, NotFound, StorageError
from perrin_orchestration.artifacts import YOUNG_SECONDS, ArtifactStore
from perrin_orchestration.store import LeaseRef

LEASE = LeaseRef("a" * 32, 2, "o")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def blob(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256[2:4]}/{sha256}"


@dataclass
class Bench:
    """An artifact store whose clock can be moved, and its files as somebody with access to the disk sees them."""

    url: str
    root: Path
    store: ArtifactStore = field(init=False)
    ahead: float = 0.0

    def __post_init__(self) -> None:
        import time

        self.store = ArtifactStore(self.url, clock=lambda: time.time() + self.ahead)

    def later(self) -> None:
        self.ahead += YOUNG_SECONDS + 60

    def put(self, data: bytes, number: int = 0) -> str:
        staged = self.store.stage(LEASE, number, data)
        self.store.publish(staged)
        return staged.sha256

    @property
    def files(self) -> list[str]:
        return files(self.root)


@pytest.fixture(params=["folder", "s3"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    if request.param == "folder":
        yield Bench(str(tmp_path), tmp_path)
        return
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    prefix = tmp_path.name
    yield Bench(f"s3://{BUCKET}/{prefix}", server.path(prefix))


def test_bytes_are_read_as_they_were_written_and_the_same_bytes_are_one_file(bench: Bench) -> None:
    sha256 = bench.put(b"dots")
    assert sha256 == hashlib.sha256(b"dots").hexdigest()
    assert bench.store.read(sha256) == b"dots"
    assert bench.put(b"dots", 1) == sha256
    assert bench.store.keep(b"dots").sha256 == sha256
    assert bench.files == [blob(sha256)]
    with pytest.raises(StorageError, match="is gone"):
        bench.store.read("0" * 64)


def test_a_folder_names_bytes_only_when_they_are_published(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    staged = store.stage(LEASE, 0, b"dots")
    assert files(tmp_path) == [f"staging/{LEASE.id}-2-0"]
    with pytest.raises(StorageError, match="is gone"):
        store.read(staged.sha256)


def test_a_lost_lease_discards_its_own_staging_only(bench: Bench) -> None:
    bench.store.stage(LEASE, 0, b"mine")
    kept = bench.store.stage(LeaseRef(LEASE.id, 3, "p"), 0, b"the next epoch's")
    bench.store.discard(LEASE)
    bench.store.publish(kept)
    assert bench.store.read(kept.sha256) == b"the next epoch's"
    assert not [name for name in bench.files if name.startswith("staging")]


def test_a_probe_writes_really_and_leaves_nothing(bench: Bench) -> None:
    bench.store.probe()
    assert bench.files == []


def test_a_probe_says_what_is_in_the_way(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    with pytest.raises(StorageError, match="free some space"):
        ArtifactStore(str(tmp_path), min_free_mb=10**9).probe()
    store.probe()
    (tmp_path / "staging").rmdir()
    (tmp_path / "staging").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        store.probe()


@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_changed_bytes_are_refused(bench: Bench, change: str) -> None:
    sha256 = bench.put(b"0123456789")
    path = bench.root / blob(sha256)
    match change:
        case "flip":
            path.write_bytes(b"0123456780")
        case "cut":
            path.write_bytes(b"01234")
        case "remove":
            path.unlink()
    with pytest.raises(StorageError, match=r"has changed|is gone") as refused:
        bench.store.read(sha256)
    assert str(bench.root) not in refused.value.message


def test_a_nearly_full_disk_is_refused_naming_free_and_needed(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "not" / "made"), min_free_mb=10**9)
    with pytest.raises(StorageError, match=r"has \d+ MiB free and 1000000000 MiB are needed"):
        store.check_room()
    with pytest.raises(StorageError):
        store.stage(LEASE, 0, b"x")
    assert files(tmp_path) == []


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = ArtifactStore(str(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        store.stage(LEASE, 0, b"x")
    store.discard(LEASE)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_used_is_said_before_any_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be used"):
        ArtifactStore(str(tmp_path / "file" / "below")).check()
    ArtifactStore((tmp_path / "new folder").as_uri()).check()
    assert (tmp_path / "new folder").is_dir()


@pytest.mark.parametrize("url", ["", "s3://", "s3:///no-bucket", "gs://b/p", "http://127.0.0.1/x", "file://host/x"])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"PERRIN_ARTIFACTS_URL: .* wanted a folder, file:///PATH or s3://"):
        ArtifactStore(url)


def test_sampler_states_are_kept_one_a_job_and_checked(bench: Bench) -> None:
    store = bench.store
    first, second = store.put_state(LEASE, b"row 1"), store.put_state(LEASE, b"row 2")
    store.drop_states(LEASE.id, keep=second)
    assert store.state(LEASE.id, second) == b"row 2"
    with pytest.raises(StorageError, match="saved sampler state"):
        store.state(LEASE.id, first)
    store.drop_states(LEASE.id)
    assert bench.files == []


def test_a_preview_belongs_to_one_attempt(bench: Bench) -> None:
    store = bench.store
    store.put_preview(LEASE, b"old")
    store.put_preview(LEASE, b"png")
    assert store.preview(LEASE.id, 2) == b"png"
    with pytest.raises(NotFound):
        store.preview(LEASE.id, 3)
    store.drop_preview(LEASE)
    with pytest.raises(NotFound):
        store.preview(LEASE.id, 2)
    store.drop_preview(LEASE)


def test_a_job_that_is_over_leaves_nothing_but_its_results(bench: Bench) -> None:
    sha256, other = bench.put(b"dots"), LeaseRef("b" * 32, 1, "o")
    for lease in (LEASE, other):
        bench.store.put_preview(lease, b"png")
        bench.store.put_state(lease, b"row")
    before = bench.files
    bench.store.stage(LEASE, 7, b"dots")
    bench.store.forget(LEASE.id)
    assert bench.files == [name for name in before if LEASE.id not in name]
    assert bench.store.read(sha256) == b"dots"
    assert bench.store.preview(other.id, 1) == b"png"


def test_pages_follow_each_other_in_order(bench: Bench) -> None:
    hashes = {bench.put(bytes([i])) for i in range(12)}
    seen: list[str] = []
    while page := bench.store.page("blobs/", seen[-1] if seen else "", 5):
        assert len(page) <= 5
        seen += [item.key for item in page]
    assert seen == sorted(map(blob, hashes))
    assert bench.store.page("nothing/") == []
    assert bench.store.page("blobs/", "blobs/zz") == []


def test_bytes_that_no_row_names_are_removed_unless_they_are_young(bench: Bench) -> None:
    sha256 = bench.put(b"dots")
    assert not bench.store.remove(sha256), "another job may be about to name it"
    bench.later()
    assert bench.store.remove(sha256)
    assert bench.store.page("blobs/") == []
    assert not bench.store.remove(sha256)


Between = Callable[[Callable[[], None]], None]


def test_a_result_that_is_written_anew_while_it_is_being_removed_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the remover has seen by then, the writer's bytes can be read afterwards."""
    sha256 = bench.put(b"dots")
    if bench.url.startswith("s3"):
        place = bench.store._place
        real, done = place._call, []  # type: ignore[attr-defined]

        def written_before_the_delete(method: str, **values: object) -> object:
            if method == "delete_object" and not done:
                done.append(bench.put(b"dots", 1))
            return real(method, **values)

        monkeypatch.setattr(place, "_call", written_before_the_delete)
        bench.later()
        assert bench.store.remove(sha256)
        assert done
    else:
        os.utime(bench.root / blob(sha256), (0, 0))
        stat, looked = Path.stat, []

        def written_between(path: Path, **values: bool) -> os.stat_result:
            found = stat(path, **values)
            if path.name == sha256 and not looked:
                looked.append(path)
                bench.put(b"dots", 1)
            return found

        monkeypatch.setattr(Path, "stat", written_between)
        assert not bench.store.remove(sha256)
        assert looked
    assert bench.store.read(sha256) == b"dots"
