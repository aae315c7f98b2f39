"""A whole platform whose artifacts and states lie on S3: jobs through HTTP to files, kills, and S3 going away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from platforms import PATIENCE, Platform, running
from s3 import BUCKET, S3Server

from perrin.errors import StorageError
from perrin_orchestration import embedded

LEASE = 8.0

LONG = {"steps": 50, "count": 2, "delay": 0.1}
"""A job of five seconds, which can be met on its way."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    made = S3Server(tmp_path_factory.mktemp("s3"))
    made.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made
    made.kill()


@pytest.fixture(scope="module")
def platform(dots: Path, server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("home")
    with running(home, lease_seconds=LEASE, save_seconds=0.1, artifacts_url=f"s3://{BUCKET}/studio") as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(platform: Platform) -> list[bytes]:
    return platform.bytes(platform.wait(platform.submit(**LONG), "succeeded"))


def left(server: S3Server, *parts: str) -> list[str]:
    return [key for key in server.keys if key.split("/")[1] in parts]


def gone(server: S3Server, *parts: str) -> None:
    """Wait until nothing is left there: the worker removes it when it has time."""
    end = time.monotonic() + PATIENCE
    while rest := left(server, *parts):
        assert time.monotonic() < end, rest
        time.sleep(0.1)


def test_results_lie_in_the_bucket_and_nowhere_else(platform: Platform, server: S3Server) -> None:
    job = platform.wait(platform.submit(count=2, radius=4), "succeeded")
    assert [data[:2] for data in platform.bytes(job)] == [b"P5", b"P5"]
    hashes = {artifact.sha256 for artifact in job.artifacts}
    assert hashes <= {key.rpartition("/")[2] for key in left(server, "blobs")}
    assert not (platform.home / "artifacts").exists()
    gone(server, "staging", "removed")


def test_a_killed_engine_goes_on_from_the_state_in_the_bucket_to_the_same_bytes(
    platform: Platform, server: S3Server, undisturbed: list[bytes]
) -> None:
    job_id = platform.submit(**LONG)
    platform.at_step(job_id, 8)
    assert [key for key in left(server, "states") if job_id in key]
    platform.engine().kill()
    job = platform.wait(job_id, "succeeded")
    assert platform.tries(job) == 2
    assert platform.bytes(job) == undisturbed
    events = platform.events(job_id)
    back = next(i for i, event in enumerate(events) if "SIGKILL" in event.message)
    resumed = next(event for event in events[back:] if event.progress and event.progress.stage == "step")
    assert resumed.progress is not None
    assert resumed.progress.done >= 4, "it started over"


def test_an_artifact_that_was_changed_in_the_bucket_is_refused_by_its_hash(
    platform: Platform, server: S3Server
) -> None:
    job = platform.wait(platform.submit(seed=99), "succeeded")
    (artifact,) = job.artifacts
    (key,) = [key for key in left(server, "blobs") if key.endswith(artifact.sha256)]
    server.path(key).write_bytes(b"P5 something else")
    answer = platform.client.get(f"/artifacts/{artifact.id}")
    assert answer.status_code == 507
    assert "has changed" in answer.json()["error"]["message"]


def test_while_the_server_is_away_jobs_wait_and_are_tried_again_and_nothing_is_lost(
    platform: Platform, server: S3Server, undisturbed: list[bytes]
) -> None:
    running = platform.submit(**LONG)
    platform.at_step(running, 20)
    server.kill()
    queued = [platform.submit(steps=5, seed=seed) for seed in range(3)]
    old = platform.client.get("/jobs?state=succeeded").json()[0]["artifacts"][0]["id"]
    answer = platform.client.get(f"/artifacts/{old}")
    assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "StorageAway")
    end = time.monotonic() + PATIENCE
    while "does not answer" not in str(platform.job(running).error):
        assert time.monotonic() < end, platform.job(running)
        time.sleep(0.1)
    server.start()
    job = platform.wait(running, "succeeded")
    assert platform.bytes(job) == undisturbed
    events = platform.events(running)
    again = next(i for i, event in enumerate(events) if "tried again" in event.message)
    resumed = next(event for event in events[again:] if event.progress and event.progress.stage == "step")
    assert resumed.progress is not None
    assert resumed.progress.done >= 15, "it started over"
    for job_id in queued:
        done = platform.wait(job_id, "succeeded")
        assert len(done.artifacts) == 1
        assert len([event for event in platform.events(job_id) if event.state.terminal]) == 1
    crashes = [
        event for job_id in (running, *queued) for event in platform.events(job_id) if "SIGKILL" in event.message
    ]
    assert crashes == [], "an engine was taken for hanging"


def test_nothing_is_left_behind_by_jobs_that_are_over(platform: Platform, server: S3Server) -> None:
    platform.idle()
    gone(server, "staging", "previews", "states", "removed")


def test_a_missing_bucket_is_one_line_at_start_up(dots: Path, server: S3Server, tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="bucket nowhere does not exist"),
        embedded.platform(tmp_path / "a", artifacts_url="s3://nowhere/x"),
    ):
        pass
    home = tmp_path / "b"
    environment = os.environ | {"PERRIN_HOME": str(home), "PERRIN_ARTIFACTS_URL": "s3://nowhere/x", "PERRIN_PORT": "0"}

    def perrin(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "perrin", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    assert perrin("db", "upgrade").returncode == 0
    for command in (["gateway"], ["worker", "--cpu"], ["db", "clean"]):
        ended = perrin(*command)
        assert ended.returncode == 1, ended
        assert [line for line in ended.stderr.splitlines() if "Traceback" in line] == []
        assert (
            ended.stderr.strip()
            .splitlines()[-1]
            .startswith(
                "perrin: the artifact store's bucket nowhere does not exist: make it, or correct PERRIN_ARTIFACTS_URL"
            )
        )
