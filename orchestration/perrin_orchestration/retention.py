"""Retention, over the store and the artifacts together: rows go first, then the bytes that no row names any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.store import JobStore

__all__ = ["clean", "sweep"]


def clean(store: JobStore, artifacts: ArtifactStore, settings: Settings) -> int:
    """Delete some of the jobs that ended longer ago than the settings keep them; how many."""
    removed = store.keeper.clean(settings.keep_days, settings.keep_failed_days)
    for job_id in removed.jobs:
        artifacts.forget(job_id)
    for sha256 in removed.hashes:
        artifacts.remove(sha256)
    return len(removed.jobs)


def sweep(store: JobStore, artifacts: ArtifactStore) -> int:
    """Remove every file among the results that no result names; how many. Those of the last hour are left alone."""
    gone = 0
    for some in _chunks(artifacts.blobs(), 500):
        used = store.keeper.in_use(some)
        gone += sum(artifacts.remove(sha256) for sha256 in some if sha256 not in used)
    return gone


def _chunks(items: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    rest = iter(items)
    while some := tuple(islice(rest, size)):
        yield some
