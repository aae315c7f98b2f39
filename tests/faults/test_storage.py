"""The disk that results go to is really full: a small file system of its own, filled to the last byte or inode."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from guard import Guard
from harness.backends import on_sqlite
from harness.checker import judge
from harness.clients import MENU, learn, submit
from harness.cluster import Backend, Cluster
from harness.processes import wait_for
from servers import need

MIB = 1 << 20
INODES = 600


class Disk:
    """A file system of 6 MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        options = f"size=6m,nr_inodes={INODES}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], capture_output=True)
        need(done.returncode == 0, "right to mount a file system", "run the tests as root")
        self._ballast = path / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Fill it, but for ``leave`` bytes."""
        free = os.statvfs(self.path)
        with self._ballast.open("ab") as stream:
            stream.write(bytes(max(0, free.f_bavail * free.f_frsize - leave)))

    def use_up_names(self) -> None:
        """There is room for bytes and none for another file, which only the attempt shows."""
        self._ballast.mkdir()
        done = subprocess.run(["touch", *map(str, range(INODES))], cwd=self._ballast, capture_output=True, text=True)
        assert "No space left" in done.stderr

    def free(self) -> None:
        """Make room."""
        subprocess.run(["rm", "-rf", str(self._ballast)], check=True)


@pytest.fixture(scope="module")
def disk(guard: Guard, backend: Backend) -> Iterator[Disk]:
    made = Disk(guard.folder / f"disk-{backend.name}")
    yield made
    subprocess.run(["umount", "-l", str(made.path)], check=True)


@pytest.fixture(scope="module")
def cramped(guard: Guard, backend: Backend, plugin: Path, disk: Disk) -> Iterator[Cluster]:
    environment = {"PERRIN_ARTIFACTS_URL": str(disk.path / "artifacts")}
    with Cluster(guard, backend, plugin, workers=1, environment=environment) as cluster:
        learn(cluster, MENU[:2])
        yield cluster
        cluster.settle()
        verdict = judge(cluster.history)
        assert verdict.ok, str(verdict)


def fill_under(cluster: Cluster, fill: Callable[[], None], message: str) -> None:
    """A job that may not wait runs while the disk fills: it has failed, and nobody begins what would fail as well."""
    soon = (datetime.now(UTC) + timedelta(seconds=9)).isoformat()
    doomed = submit(cluster, MENU[0] | {"seed": 21, "steps": 20}, deadline=soon)
    assert cluster.holding(doomed, where=lambda found: found.stage == "step") is not None
    fill()
    row = cluster.wait(doomed, "failed")
    assert row["error_kind"] == "storage"
    assert message in row["error_message"]
    pool = wait_for(lambda: (found := pool_of(cluster))["state"] == "blocked" and found, "not blocked")
    assert message in pool["reason"]
    staging = cluster.home.parent / "disk-sqlite" / "artifacts" / "staging"
    wait_for(lambda: not any(staging.iterdir()), "staging is not cleaned")  # other jobs may be about to end


@on_sqlite
def test_a_disk_without_room_fails_the_job_and_blocks_the_pool_until_there_is(cramped: Cluster, disk: Disk) -> None:
    began = time.time()
    patient = submit(cramped, MENU[0] | {"steps": 60})
    fill_under(cramped, disk.fill, "has 0 MiB free")
    refused = cramped.http.post("/jobs", json={"modality": "dots", "parameters": MENU[1]})
    assert (refused.status_code, refused.json()["error"]["kind"]) == (507, "StorageError")
    wait_for(lambda: cramped.observer.job(patient)["state"] == "waiting", "it does not wait for another try")
    disk.free()
    wait_for(lambda: pool_of(cramped)["state"] == "open", "it does not open by itself")
    assert pool_of(cramped)["reason"] == ""
    cramped.wait(patient, "succeeded")
    cramped.history.broke("disk full", "artifacts", since=began)


@on_sqlite
def test_a_disk_without_inodes_shows_it_only_when_it_is_written_to(cramped: Cluster, disk: Disk) -> None:
    began = time.time()
    fill_under(cramped, disk.use_up_names, "disk is full")
    queued = submit(cramped, MENU[1])
    time.sleep(3.5)
    assert cramped.observer.job(queued)["attempts"] == 0, "nothing is claimed"
    assert pool_of(cramped)["state"] == "blocked"
    disk.free()
    cramped.wait(queued, "succeeded")
    assert pool_of(cramped)["state"] == "open"
    cramped.history.broke("disk full", "artifacts", since=began)


def pool_of(cluster: Cluster) -> dict[str, str]:
    (pool,) = (pool for pool in cluster.http.get("/pools").json() if pool["name"] == "dots")
    return dict(pool)
