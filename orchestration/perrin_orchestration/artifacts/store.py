"""The layout, the same in a folder and in a bucket::

    staging/JOB-EPOCH-N     a folder only: being written; whatever lies here belongs to no result
    blobs/ab/cd/SHA256      results and uploads; what lies here is whole
    removed/SHA256          a bucket only: about to be deleted, and still found by who reads it
    owner                   id of the job store whose rows name all this
    states/JOB/SHA256       the last saved sampler state
    previews/JOB-EPOCH.png  the last preview

Every key is made of identifiers that the store gave out and of hashes, never of anything a request said. A hash is
checked whenever bytes are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from perrin.errors import Conflict, InvalidInput, NotFound, StorageError
from perrin_orchestration.artifacts.folder import Folder
from perrin_orchestration.artifacts.place import STAGING, Item, Place, Tell, nobody
from perrin_orchestration.store.values import LeaseRef

__all__ = ["YOUNG_SECONDS", "ArtifactStore", "Staged"]

_MIB = 1 << 20

_PROBE = bytes(1 << 16)

OWNER = "owner"
BLOBS, STATES, PREVIEWS = "blobs/", "states/", "previews/"

YOUNG_SECONDS = 3600.0
"""What is this young is never removed for want of a row: the row that names it may be about to be written."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Bytes that are safe and have no row yet; ``draft`` is what they are called until they are published."""

    sha256: str
    size: int
    draft: str


class ArtifactStore:
    """Artifacts, uploads, sampler states and previews under one URL.

    Args:
        url: a folder, ``file:///PATH`` or ``s3://BUCKET/PREFIX``.
        min_free_mb: refuse to write when less than this would be free afterwards, in MiB; only a folder knows.
        clock: seconds since 1970.

    Raises:
        InvalidInput: the URL is neither.
        NotInstalled: the ``s3`` extra is missing.
    """

    def __init__(self, url: str, min_free_mb: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._place = _place(url)
        self._min_free = min_free_mb * _MIB
        self._clock = clock

    def check(self) -> None:
        """Make sure, before any job, that the folder or bucket is there.

        Raises:
            StorageError: it is not, or may not be used; `perrin.errors.StorageAway` if it does not answer.
        """
        self._place.check()

    def check_ready(self) -> None:
        """Make sure that work may begin: there is room, and the bucket answers.

        Raises:
            StorageError: it had better not.
        """
        self._place.check_answers()
        self.check_room()

    def check_room(self, size: int = 0) -> None:
        """Make sure that ``size`` more bytes fit.

        Raises:
            StorageError: they don't; says what is free and what is needed.
        """
        free, needed = self._place.free(), size + self._min_free
        if free is not None and free < needed:
            raise StorageError(
                f"the artifact store's disk has {free // _MIB} MiB free and {-(-needed // _MIB)} MiB are needed "
                f"(PERRIN_MIN_FREE_MB is {self._min_free // _MIB}): free some space"
            )

    def probe(self) -> None:
        """Make sure that a result could be written now: there is room, and a small file can be written and synced.

        Raises:
            StorageError: it could not be.
        """
        self.check_ready()
        self.check_room(len(_PROBE))
        name = f"probe-{uuid.uuid4().hex}"
        try:
            self._place.draft(name, f"{STAGING}{name}", _PROBE)
        finally:
            with contextlib.suppress(StorageError):
                self._place.drop_drafts(name)
                self._place.remove([f"{STAGING}{name}"])

    # --- results and uploads ------------------------------------------------------------------------------------------

    def stage(self, lease: LeaseRef, number: int, data: bytes, tell: Tell = nobody) -> Staged:
        """Write ``data`` durably, under no name that any row has.

        Args:
            lease, number: whose it is, and which of its files.
            data: the bytes.
            tell: called now and then while they are on their way.

        Raises:
            StorageError: there is no room, or the store refuses or is away.
        """
        return self._stage(f"{lease.id}-{lease.epoch}-{number}", data, tell)

    def publish(self, staged: Staged) -> None:
        """Give staged bytes their name, which is their hash. The same bytes twice are one file.

        Raises:
            StorageError: the folder cannot be written.
        """
        self._place.finish(staged.draft, _blob(staged.sha256))

    def keep(self, data: bytes) -> Staged:
        """Stage and publish an upload.

        Raises:
            StorageError: as with `stage`.
        """
        staged = self._stage(f"upload-{uuid.uuid4().hex}", data)
        self.publish(staged)
        return staged

    def _stage(self, draft: str, data: bytes, tell: Tell = nobody) -> Staged:
        self.check_room(len(data))
        sha256 = hashlib.sha256(data).hexdigest()
        self._place.draft(draft, _blob(sha256), data, tell=tell)
        return Staged(sha256, len(data), draft)

    def discard(self, lease: LeaseRef) -> None:
        """Remove whatever was staged under this lease."""
        with contextlib.suppress(StorageError):
            self._place.drop_drafts(f"{lease.id}-{lease.epoch}-")

    def read(self, sha256: str, tell: Tell = nobody) -> bytes:
        """The bytes of a result or an upload; ``tell`` as with `stage`.

        Raises:
            StorageError: they are gone, or are not the bytes that were written.
        """
        return self._checked(_blob(sha256), sha256, "the artifact", tell)

    def remove(self, sha256: str) -> bool:
        """Remove bytes that no row names, unless they are young; whether they are gone."""
        with contextlib.suppress(StorageError):
            return self._place.retire(_blob(sha256), self._old)
        return False

    # --- sampler states -----------------------------------------------------------------------------------------------

    def put_state(self, lease: LeaseRef, data: bytes, tell: Tell = nobody) -> str:
        """Keep a sampler state; its hash. ``tell`` as with `stage`.

        Raises:
            StorageError: there is no room, or the store refuses or is away.
        """
        self._place.check_answers()
        self.check_room(len(data))
        sha256 = hashlib.sha256(data).hexdigest()
        self._write(f"{lease.id}-{lease.epoch}-state", f"{STATES}{lease.id}/{sha256}", data, tell=tell)
        return sha256

    def state(self, job_id: str, sha256: str, tell: Tell = nobody) -> bytes:
        """A saved sampler state; ``tell`` as with `stage`.

        Raises:
            StorageError: it is gone or was changed; `perrin.errors.StorageAway` if it may still be there.
        """
        return self._checked(f"{STATES}{job_id}/{sha256}", sha256, "the saved sampler state", tell)

    def drop_states(self, job_id: str, keep: str | None = None) -> None:
        """Remove a job's sampler states, but for ``keep``."""
        with contextlib.suppress(StorageError):
            found = self._place.page(f"{STATES}{job_id}/")
            self._place.remove([item.key for item in found if item.name != keep])

    # --- previews -----------------------------------------------------------------------------------------------------

    def put_preview(self, lease: LeaseRef, png: bytes) -> None:
        """Replace the job's preview. It is worth nothing tomorrow, so it is not synced.

        Raises:
            StorageError: it cannot be written.
        """
        self._place.check_answers()
        self._write(f"{lease.id}-{lease.epoch}-preview", _preview(lease.id, lease.epoch), png, durable=False)

    def preview(self, job_id: str, epoch: int) -> bytes:
        """The job's last preview.

        Raises:
            NotFound: there is none, or none any more.
        """
        data = self._place.read(_preview(job_id, epoch))
        if data is None:
            raise NotFound(f"job {job_id} has no preview at present")
        return data

    def drop_preview(self, lease: LeaseRef) -> None:
        """Remove the preview of an attempt that is over."""
        with contextlib.suppress(StorageError):
            self._place.remove([_preview(lease.id, lease.epoch)])

    def forget(self, job_id: str) -> None:
        """A job is over: remove everything but its results."""
        self.drop_states(job_id)
        with contextlib.suppress(StorageError):
            self._place.remove([item.key for item in self._place.page(f"{PREVIEWS}{job_id}-")])
            self._place.drop_drafts(f"{job_id}-")

    # --- for who looks for what nobody needs any more -----------------------------------------------------------------

    def check_owner(self, store_id: str) -> None:
        """Make sure that what lies here is this job store's, or nobody's, and this store's from now on.

        Raises:
            Conflict: it is another's: what this one does not name is not left over.
        """
        owner = self._place.read(OWNER)
        if owner is None:
            self._write(f"{OWNER}-{uuid.uuid4().hex}", OWNER, store_id.encode())
        elif owner != store_id.encode():
            raise Conflict(
                "the artifacts belong to another job store, so nothing is removed: check PERRIN_ARTIFACTS_URL and "
                f"PERRIN_DATABASE_URL; if they are right, remove {OWNER!r} from the artifacts"
            )

    def page(self, start: str, after: str = "", limit: int = 1000) -> list[Item]:
        """Up to ``limit`` of the items under a part of the layout, such as ``states/``, that come after ``after``."""
        return self._place.page(start, after, limit)

    def young(self, item: Item) -> bool:
        """Whether it may be about to be named."""
        return item.modified >= self._old

    def drop(self, items: list[Item]) -> None:
        """Remove items of a page.

        Raises:
            StorageError: they cannot be removed now.
        """
        self._place.remove([item.key for item in items])

    def put_back(self, sha256: str) -> None:
        """A row names bytes that were taken for nobody's."""
        self._place.put_back(_blob(sha256))

    def tidy(self) -> int:
        """Remove what uploads in parts left that were never finished, a day ago or longer; how many."""
        return self._place.tidy(self._clock() - 24 * YOUNG_SECONDS)

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _old(self) -> float:
        return self._clock() - YOUNG_SECONDS

    def _write(self, draft: str, key: str, data: bytes, *, durable: bool = True, tell: Tell = nobody) -> None:
        self._place.draft(draft, key, data, durable=durable, tell=tell)
        self._place.finish(draft, key)

    def _checked(self, key: str, sha256: str, what: str, tell: Tell) -> bytes:
        data = self._place.read(key, tell)
        if data is None:
            raise StorageError(f"{what} {sha256[:12]} is gone from the artifact store")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StorageError(f"{what} {sha256[:12]} has changed: its bytes no longer have the hash recorded")
        return data


def _blob(sha256: str) -> str:
    return f"{BLOBS}{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _preview(job_id: str, epoch: int) -> str:
    return f"{PREVIEWS}{job_id}-{epoch}.png"


def _place(url: str) -> Place:
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        from perrin_orchestration.artifacts.objects import Objects

        prefix = parts.path.strip("/")
        return Objects(parts.netloc, prefix and prefix + "/")
    if parts.scheme in ("", "file") and not parts.netloc and parts.path:
        return Folder(Path(unquote(parts.path) if parts.scheme else url).absolute())
    raise InvalidInput("PERRIN_ARTIFACTS_URL", url, "a folder, file:///PATH or s3://BUCKET/PREFIX")
