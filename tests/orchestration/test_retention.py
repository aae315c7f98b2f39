"""Rows and bytes go together: what is old is deleted, what is used stays, and strays are swept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perrin.errors import NotFound, StorageError
from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.retention import clean, sweep
from perrin_orchestration.store import Job, JobStore, NewArtifact, NewJob

New = Callable[..., NewJob]


def made(store: JobStore, artifacts: ArtifactStore, new: New, data: bytes) -> Job:
    store.submit(new())
    (job,) = store.claim("o", "w", ["dots"], 1, 30.0)
    store.start(job.lease)
    store.committing(job.lease)
    staged = artifacts.stage(job.lease, 0, data)
    artifacts.publish(staged)
    store.charge({job.id: 1.0}, {job.id: 50.0})
    store.commit(job.lease, [NewArtifact("0.pgm", "m", staged.size, staged.sha256, (0,), {})])
    return store.get(job.id)


def age(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))


def test_old_jobs_go_with_the_bytes_that_are_theirs_alone(
    store: JobStore, new: New, clock: Any, tmp_path: Path
) -> None:
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    settings = Settings(home=tmp_path, keep_days=5)
    old, shared = made(store, artifacts, new, b"mine"), made(store, artifacts, new, b"ours")
    hashes = {job.id: store.artifacts([job.id])[job.id][0].sha256 for job in (old, shared)}
    clock.now += 6 * 86400
    young = made(store, artifacts, new, b"ours")
    age(tmp_path / "artifacts")
    assert clean(store, artifacts, Settings(home=tmp_path)) == 0, "0 days is for ever"
    assert clean(store, artifacts, settings) == 2
    assert clean(store, artifacts, settings) == 0
    with pytest.raises(NotFound):
        store.get(old.id)
    with pytest.raises(StorageError, match="is gone"):
        artifacts.read(hashes[old.id])
    assert artifacts.read(store.artifacts([young.id])[young.id][0].sha256) == b"ours"


def test_strays_are_swept_and_results_are_not(store: JobStore, new: New, tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    job = made(store, artifacts, new, b"result")
    artifacts.publish(artifacts.stage(job.lease, 9, b"stray"))
    assert sweep(store, artifacts) == 0, "both are young"
    age(tmp_path / "artifacts")
    assert sweep(store, artifacts) == 1
    assert list(artifacts.blobs()) == [store.artifacts([job.id])[job.id][0].sha256]
