"""Artifacts: whole or not there, checked when read, refused when the disk is nearly full."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from perrin.errors import NotFound, StorageError
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.store import LeaseRef

LEASE = LeaseRef("a" * 32, 2, "o")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_bytes_get_their_name_only_when_they_are_published(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    staged = store.stage(LEASE, 0, b"dots")
    assert staged.sha256 == hashlib.sha256(b"dots").hexdigest()
    with pytest.raises(StorageError, match="is gone"):
        store.read(staged.sha256)
    store.publish(staged)
    assert store.read(staged.sha256) == b"dots"
    store.publish(store.stage(LEASE, 1, b"dots"))
    assert files(tmp_path) == [f"blobs/{staged.sha256[:2]}/{staged.sha256[2:4]}/{staged.sha256}"]


def test_a_probe_writes_really_and_leaves_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.probe()
    assert files(tmp_path) == []
    with pytest.raises(StorageError, match="free some space"):
        ArtifactStore(str(tmp_path), min_free_mb=10**9).probe()
    (tmp_path / "staging").rmdir()
    (tmp_path / "staging").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        store.probe()


def test_a_lost_lease_discards_its_own_staging_only(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.stage(LEASE, 0, b"mine")
    kept = store.stage(LeaseRef(LEASE.id, 3, "p"), 0, b"the next epoch's")
    store.discard(LEASE)
    store.publish(kept)
    assert store.read(kept.sha256) == b"the next epoch's"
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_changed_bytes_are_refused(tmp_path: Path, change: str) -> None:
    store = ArtifactStore(str(tmp_path))
    staged = store.stage(LEASE, 0, b"0123456789")
    store.publish(staged)
    path = tmp_path / files(tmp_path)[0]
    match change:
        case "flip":
            path.write_bytes(b"0123456780")
        case "cut":
            path.write_bytes(b"01234")
        case "remove":
            path.unlink()
    with pytest.raises(StorageError, match=r"has changed on disk|is gone") as refused:
        store.read(staged.sha256)
    assert str(tmp_path) not in refused.value.message


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


def test_sampler_states_are_kept_one_a_job_and_checked(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    first, second = store.put_state(LEASE, b"row 1"), store.put_state(LEASE, b"row 2")
    store.drop_states(LEASE.id, keep=second)
    assert store.state(LEASE.id, second) == b"row 2"
    with pytest.raises(StorageError, match="saved sampler state"):
        store.state(LEASE.id, first)
    store.drop_states(LEASE.id)
    assert files(tmp_path) == []


def test_a_preview_belongs_to_one_attempt(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.put_preview(LEASE, b"old")
    store.put_preview(LEASE, b"png")
    assert store.preview(LEASE.id, 2) == b"png"
    with pytest.raises(NotFound):
        store.preview(LEASE.id, 3)
    store.drop_preview(LEASE)
    with pytest.raises(NotFound):
        store.preview(LEASE.id, 2)


def test_the_same_code_stores_on_another_filesystem() -> None:
    store = ArtifactStore("memory://perrin-test", min_free_mb=10**9)  # knows no free space, so asks for none
    staged = store.stage(LEASE, 0, b"far away")
    store.publish(staged)
    assert store.read(staged.sha256) == b"far away"
    state = store.put_state(LEASE, b"row")
    assert store.state(LEASE.id, state) == b"row"
    store.drop_states(LEASE.id)
    with pytest.raises(StorageError):
        store.state(LEASE.id, state)


def test_a_result_that_no_row_names_is_removed_unless_it_is_young(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    staged = store.stage(LEASE, 0, b"dots")
    store.publish(staged)
    assert list(store.blobs()) == [staged.sha256]
    assert not store.remove(staged.sha256), "another job may be about to name it"
    path = tmp_path / "blobs" / staged.sha256[:2] / staged.sha256[2:4] / staged.sha256
    os.utime(path, (0, 0))
    assert store.remove(staged.sha256)
    assert files(tmp_path) == []
    assert not store.remove(staged.sha256)


def test_a_result_that_is_written_anew_while_it_is_being_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(str(tmp_path))
    staged = store.stage(LEASE, 0, b"dots")
    store.publish(staged)
    path = tmp_path / "blobs" / staged.sha256[:2] / staged.sha256[2:4] / staged.sha256
    os.utime(path, (0, 0))
    young, looked = store._young, []

    def written_between(at: str) -> bool:
        found = young(at)
        if not looked:
            store.publish(store.stage(LEASE, 1, b"dots"))
        looked.append(at)
        return found

    monkeypatch.setattr(store, "_young", written_between)
    assert not store.remove(staged.sha256)
    assert len(looked) == 2
    assert store.read(staged.sha256) == b"dots"
