"""Bytes on disk or in S3: results by their hash, sampler states and previews by their job.

::

    staging/JOB-EPOCH-N     being written; whatever lies here belongs to no result
    blobs/ab/cd/SHA256      results; a file here is whole, because it got its name after it was written and synced
    states/JOB/SHA256       the last saved sampler state
    previews/JOB-EPOCH.png  the last preview

Every path is made of identifiers that the store gave out and of hashes, never of anything a request said. A hash is
checked whenever bytes are read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from perrin.errors import NotFound, StorageError
from perrin_orchestration.store.values import LeaseRef

__all__ = ["ArtifactStore", "Staged"]

_MIB = 1 << 20

_PROBE = bytes(1 << 16)

YOUNG_SECONDS = 3600.0
"""A result this young is never removed: the row that names it may be about to be written."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes that are safe on disk and have no name yet."""

    sha256: str
    size: int
    path: str


class ArtifactStore:
    """Artifacts, sampler states and previews under one fsspec URL.

    Args:
        url: a folder, ``file://``, ``s3://`` or any other fsspec URL.
        min_free_mb: refuse to write when less than this would be free afterwards, in MiB; only a local folder knows.
    """

    def __init__(self, url: str, min_free_mb: int = 0) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._min_free = min_free_mb * _MIB

    def check_room(self, size: int = 0) -> None:
        """Make sure that ``size`` more bytes fit.

        Raises:
            StorageError: they don't; says what is free and what is needed.
        """
        if not self._local:
            return
        stat = os.statvfs(_existing(Path(self._root)))
        free, needed = stat.f_bavail * stat.f_frsize, size + self._min_free
        if free < needed:
            raise StorageError(
                f"the artifact store's disk has {free // _MIB} MiB free and {-(-needed // _MIB)} MiB are needed "
                f"(PERRIN_MIN_FREE_MB is {self._min_free // _MIB}): free some space"
            )

    def probe(self) -> None:
        """Make sure that a result could be written now: there is room, and a small file can be written and synced.

        Raises:
            StorageError: it could not be.
        """
        self.check_room(len(_PROBE))
        path = self._path("staging", f"probe-{uuid.uuid4().hex}")
        try:
            self._write(path, _PROBE, sync=True)
        finally:
            with contextlib.suppress(OSError):
                self._fs.rm_file(path)

    # --- results ------------------------------------------------------------------------------------------------------

    def stage(self, lease: LeaseRef, number: int, data: bytes) -> Staged:
        """Write ``data`` durably, under no name that anybody reads.

        Raises:
            StorageError: there is no room, or the folder cannot be written.
        """
        self.check_room(len(data))
        path = self._path("staging", f"{lease.id}-{lease.epoch}-{number}")
        self._write(path, data, sync=True)
        return Staged(hashlib.sha256(data).hexdigest(), len(data), path)

    def publish(self, staged: Staged) -> None:
        """Give staged bytes their name, which is their hash. The same bytes twice are one file.

        Raises:
            StorageError: the folder cannot be written.
        """
        with _storage("cannot be written"):
            target = self._blob(staged.sha256)
            self._fs.makedirs(posixpath.dirname(target), exist_ok=True)
            self._fs.mv(staged.path, target)
            self._sync_folder(posixpath.dirname(target))

    def discard(self, lease: LeaseRef) -> None:
        """Remove whatever was staged under this lease."""
        with contextlib.suppress(OSError):
            for path in self._fs.glob(self._path("staging", f"{lease.id}-{lease.epoch}-*")):
                self._fs.rm_file(path)

    def read(self, sha256: str) -> bytes:
        """The bytes of a result.

        Raises:
            StorageError: they are gone, or are not the bytes that were written.
        """
        return self._checked(self._blob(sha256), sha256, "the artifact")

    def remove(self, sha256: str) -> bool:
        """Remove a result that no row names, unless it is young; whether it is gone.

        Another job may write the same bytes at this moment. So the file is moved aside first and looked at there: what
        was renewed meanwhile is put back.
        """
        path, aside = self._blob(sha256), self._path("staging", f"removed-{uuid.uuid4().hex}")
        try:
            if self._young(path):
                return False
            self._fs.makedirs(posixpath.dirname(aside), exist_ok=True)
            self._fs.mv(path, aside)
            if self._young(aside):
                self._fs.mv(aside, path)
                return False
            self._fs.rm_file(aside)
        except OSError:
            return False
        return True

    def blobs(self) -> Iterator[str]:
        """Hashes of all results that lie here."""
        for path in self._fs.find(self._path("blobs")):
            yield posixpath.basename(path)

    def _young(self, path: str) -> bool:
        return time.time() - float(self._fs.modified(path).timestamp()) < YOUNG_SECONDS

    # --- sampler states -----------------------------------------------------------------------------------------------

    def put_state(self, lease: LeaseRef, data: bytes) -> str:
        """Keep a sampler state; its hash.

        Raises:
            StorageError: there is no room.
        """
        self.check_room(len(data))
        staged = self.stage(lease, -1, data)
        with _storage("cannot be written"):
            target = self._path("states", lease.id, staged.sha256)
            self._fs.makedirs(posixpath.dirname(target), exist_ok=True)
            self._fs.mv(staged.path, target)
        return staged.sha256

    def state(self, job_id: str, sha256: str) -> bytes:
        """A saved sampler state.

        Raises:
            StorageError: it is gone or was changed.
        """
        return self._checked(self._path("states", job_id, sha256), sha256, "the saved sampler state")

    def drop_states(self, job_id: str, keep: str | None = None) -> None:
        """Remove a job's sampler states, but for ``keep``."""
        with contextlib.suppress(OSError):
            for path in self._fs.glob(self._path("states", job_id, "*")):
                if posixpath.basename(path) != keep:
                    self._fs.rm_file(path)
            if keep is None and self._local:
                self._fs.rmdir(self._path("states", job_id))

    # --- previews -----------------------------------------------------------------------------------------------------

    def put_preview(self, lease: LeaseRef, png: bytes) -> None:
        """Replace the job's preview. It is worth nothing tomorrow, so it is not synced."""
        target = self._path("previews", f"{lease.id}-{lease.epoch}.png")
        part = self._path("staging", f"{lease.id}-{lease.epoch}-preview")
        self._write(part, png, sync=False)
        with _storage("cannot be written"):
            self._fs.makedirs(posixpath.dirname(target), exist_ok=True)
            self._fs.mv(part, target)

    def preview(self, job_id: str, epoch: int) -> bytes:
        """The job's last preview.

        Raises:
            NotFound: there is none, or none any more.
        """
        try:
            data: bytes = self._fs.cat_file(self._path("previews", f"{job_id}-{epoch}.png"))
        except OSError:
            raise NotFound(f"job {job_id} has no preview at present") from None
        return data

    def drop_preview(self, lease: LeaseRef) -> None:
        """Remove the preview of an attempt that is over."""
        with contextlib.suppress(OSError):
            self._fs.rm_file(self._path("previews", f"{lease.id}-{lease.epoch}.png"))

    def forget(self, job_id: str) -> None:
        """A job is over: remove everything but its results."""
        self.drop_states(job_id)
        with contextlib.suppress(OSError):
            for folder in ("previews", "staging"):
                for path in self._fs.glob(self._path(folder, f"{job_id}-*")):
                    self._fs.rm_file(path)

    # ------------------------------------------------------------------------------------------------------------------

    def _path(self, *parts: str) -> str:
        return posixpath.join(self._root, *parts)

    def _blob(self, sha256: str) -> str:
        return self._path("blobs", sha256[:2], sha256[2:4], sha256)

    def _write(self, path: str, data: bytes, *, sync: bool) -> None:
        with _storage("cannot be written"):
            self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
            with self._fs.open(path, "wb") as stream:
                stream.write(data)
                if sync and self._local:
                    stream.flush()
                    os.fsync(stream.fileno())

    def _checked(self, path: str, sha256: str, what: str) -> bytes:
        try:
            data: bytes = self._fs.cat_file(path)
        except OSError:
            raise StorageError(f"{what} {sha256[:12]} is gone from the artifact store") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StorageError(f"{what} {sha256[:12]} has changed on disk: its bytes no longer have the hash recorded")
        return data

    def _sync_folder(self, path: str) -> None:
        """Make a rename survive a power cut."""
        if self._local:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


@contextlib.contextmanager
def _storage(what: str) -> Iterator[Any]:
    """An operating system's refusal, in our words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError("the artifact store's disk is full: free some space and submit again") from error
        raise StorageError(f"the artifact store {what}: {error.strerror or error}") from error
