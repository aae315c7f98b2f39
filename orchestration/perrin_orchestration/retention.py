"""Retention, over the store and the artifacts together: rows go first, then the bytes that no row names any more.

What a process leaves behind that is killed at the wrong moment is found by looking through the artifacts, page by page:

::

    blobs/     an hour old, and no result or upload has its hash           removed
    removed/   an hour old: named after all                                put back; else removed
    staging/   of an attempt that nobody makes any more                    removed
    states/    of a job that is over, or not the state it goes on from     removed; the latter once an hour old
    previews/  of an attempt that nobody makes any more                    removed
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from perrin.errors import PerrinError
from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore, Item
from perrin_orchestration.store import JobStore, LeaseRef

__all__ = ["Housekeeper", "Sweeper", "clean"]

CLEAN_SECONDS = 60.0
"""A worker cleans up this often, a little each time."""

PAGE = 1000

_ATTEMPT = re.compile(r"([0-9a-f]{32})-([0-9]+)[-.]")

_log = structlog.get_logger("perrin.retention")


def clean(store: JobStore, artifacts: ArtifactStore, settings: Settings) -> int:
    """Delete some of the jobs that ended longer ago than the settings keep them; how many.

    Raises:
        Conflict: the artifacts are another store's.
    """
    artifacts.check_owner(store.keeper.store_id())
    removed = store.keeper.clean(settings.keep_days, settings.keep_failed_days)
    for job_id in removed.jobs:
        artifacts.forget(job_id)
    for sha256 in (*removed.hashes, *store.keeper.clean_uploads()):
        artifacts.remove(sha256)
    return len(removed.jobs)


class Sweeper:
    """Removes what belongs to nobody. Several at once do no harm: each asks the store about what it has found."""

    def __init__(self, store: JobStore, artifacts: ArtifactStore, page: int = PAGE) -> None:
        self._store, self._artifacts, self._page = store, artifacts, page
        self._parts: dict[str, Callable[[Sequence[Item]], int]] = {
            "staging/": self._attempts,
            "previews/": self._attempts,
            "states/": self._states,
            "removed/": self._set_aside,
            "blobs/": self._blobs,
        }
        self._after = dict.fromkeys(self._parts, "")

    def some(self) -> int:
        """Look through the next page of each part; how many files were removed.

        Raises:
            Conflict: the artifacts are another store's.
            Unreachable, StorageError: the store or the artifacts are away.
        """
        self._artifacts.check_owner(self._store.keeper.store_id())
        return sum(self._next(part) for part in self._parts)

    def all(self) -> int:
        """Look through everything, from the beginning; how many files were removed.

        Raises:
            Conflict, Unreachable, StorageError: as with `some`.
        """
        self._artifacts.check_owner(self._store.keeper.store_id())
        self._after = dict.fromkeys(self._parts, "")
        gone = self._artifacts.tidy()
        for part in self._parts:
            gone += self._next(part)
            while self._after[part]:
                gone += self._next(part)
        return gone

    def _next(self, part: str) -> int:
        found = self._artifacts.page(part, self._after[part], self._page)
        self._after[part] = found[-1].key if len(found) == self._page else ""
        return self._parts[part](found)

    def _blobs(self, found: Sequence[Item]) -> int:
        old = [item.name for item in found if not self._artifacts.young(item)]
        used = self._store.keeper.in_use(old)
        return sum(self._artifacts.remove(sha256) for sha256 in old if sha256 not in used)

    def _set_aside(self, found: Sequence[Item]) -> int:
        old = [item for item in found if not self._artifacts.young(item)]
        for sha256 in self._store.keeper.in_use(item.name for item in old):
            self._artifacts.put_back(sha256)
        self._artifacts.drop(old)
        return 0  # they were counted when they were set aside

    def _attempts(self, found: Sequence[Item]) -> int:
        """An epoch is never held twice: what is not held now under the one in the name is over."""
        names = {item: _ATTEMPT.match(item.name) for item in found}
        alive = self._store.keeper.standing({match[1] for match in names.values() if match})

        def over(item: Item) -> bool:
            match = names[item]
            if match is None:  # an upload, or a result on its way out
                return not self._artifacts.young(item)
            job = alive.get(match[1])
            return job is None or job.held != int(match[2])

        return self._drop([item for item in found if over(item)])

    def _states(self, found: Sequence[Item]) -> int:
        owners = {item: item.key.split("/")[1] for item in found}
        alive = self._store.keeper.standing(set(owners.values()))

        def over(item: Item) -> bool:
            job = alive.get(owners[item])
            return job is None or (job.saved != item.name and not self._artifacts.young(item))

        return self._drop([item for item in found if over(item)])

    def _drop(self, items: list[Item]) -> int:
        self._artifacts.drop(items)
        return len(items)


class Housekeeper(threading.Thread):
    """Does a supervisor's work on the artifacts, so that a disk or bucket that is slow or away never holds it up.

    Args:
        settings: what to keep, and where.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="perrin-housekeeper", daemon=True)
        self._settings = settings
        self._artifacts = ArtifactStore(settings.artifacts_path, settings.min_free_mb)
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def do(self, work: Callable[[], None]) -> None:
        """Do ``work`` soon, in this thread."""
        self._orders.put(work)

    def forget(self, job_id: str) -> None:
        """A job is over: remove everything but its results, soon."""
        self.do(lambda: self._artifacts.forget(job_id))

    def discard(self, lease: LeaseRef) -> None:
        """An attempt is over: remove what it was writing, soon."""
        self.do(lambda: self._artifacts.discard(lease))

    def probe(self) -> None:
        """Make sure that a result could be written now; not in the supervisor's loop.

        Raises:
            StorageError: it could not be.
        """
        self._artifacts.probe()

    def stop(self, seconds: float = 2.0) -> None:
        """Finish what was ordered, if that is possible in the time; the rest is found by a later sweep."""
        self._orders.put(None)
        self.join(seconds)

    def run(self) -> None:
        """Until `stop`."""
        store = JobStore(self._settings.store_url, patience=2.0)
        sweeper = Sweeper(store, self._artifacts)
        clean_at = time.monotonic() + CLEAN_SECONDS
        while True:
            try:
                order = self._orders.get(timeout=max(0.0, clean_at - time.monotonic()))
            except queue.Empty:
                clean_at = time.monotonic() + CLEAN_SECONDS
                self._try(lambda: self._clean(store, sweeper))
                continue
            if order is None:
                break
            self._try(order)
        store.close()

    def _clean(self, store: JobStore, sweeper: Sweeper) -> None:
        jobs, files = clean(store, self._artifacts, self._settings), sweeper.some()
        if jobs or files:
            _log.info("cleaned up", jobs=jobs, files=files)

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except PerrinError as error:
            _log.warning("clean-up put off", reason=error.message)
        except Exception:
            _log.exception("clean-up failed")
