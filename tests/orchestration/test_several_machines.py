"""A gateway and two workers, each with a home of its own as on machines of their own, that share three URLs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from guard import Guard
from platforms import PATIENCE, Platform
from s3 import BUCKET, S3Server
from servers import Redis, hold_port

from perrin.wire import WorkerRecord

LEASE = 5.0


@pytest.fixture
def redis() -> Iterator[str]:
    """URL of a private Redis."""
    Redis.needed()
    with Guard() as guard:
        server = Redis(guard)
        server.start()
        yield server.url


@dataclass
class Machine:
    """A home of its own, and what runs there."""

    home: Path
    environment: dict[str, str]

    def perrin(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "perrin", *arguments], env=self.all, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self, stack: ExitStack, *arguments: str) -> psutil.Process:
        log = stack.enter_context((self.home / "log").open("wb"))
        command = [sys.executable, "-m", "perrin", *arguments]
        process = subprocess.Popen(command, env=self.all, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return psutil.Process(process.pid)

    @property
    def all(self) -> dict[str, str]:
        return os.environ | self.environment | {"PERRIN_HOME": str(self.home)}


@dataclass
class Studio:
    platform: Platform
    workers: list[psutil.Process]

    def records(self) -> list[WorkerRecord]:
        return [WorkerRecord(**worker) for worker in self.platform.client.get("/workers").json()]

    def process(self, worker_id: str) -> psutil.Process:
        """The process whose log says that it is this worker."""
        for process in self.workers:
            if worker_id in (Path(process.environ()["PERRIN_HOME"]) / "log").read_text():
                return process
        raise AssertionError(worker_id)


@pytest.fixture
def studio(dots: Path, postgres_empty: str, redis: str, s3: S3Server, tmp_path: Path) -> Iterator[Studio]:
    shared = s3.environment | {
        "PERRIN_DATABASE_URL": postgres_empty,
        "PERRIN_BROKER_URL": redis,
        "PERRIN_ARTIFACTS_URL": f"s3://{BUCKET}/{tmp_path.name}",
        "PERRIN_LEASE_SECONDS": str(LEASE),
        "PERRIN_SAVE_SECONDS": "0.1",
    }
    front, left, right = (Machine(tmp_path / name, shared) for name in ("front", "left", "right"))
    for machine in (front, left, right):
        machine.home.mkdir()
    front.perrin("db", "upgrade")
    key = front.perrin("db", "key", "ann")
    with ExitStack() as stack:
        port = stack.enter_context(hold_port()).getsockname()[1]
        front.start(stack, "gateway", "--port", str(port))
        workers = [machine.start(stack, "worker", "--cpu", "--pool", "dots") for machine in (left, right)]
        headers = {"Authorization": f"Bearer {key}"}
        transport = httpx.HTTPTransport(retries=8)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}/v1", headers=headers, transport=transport, timeout=60
        ) as client:
            made = Studio(Platform(tmp_path / "none", client), workers)
            end = time.monotonic() + PATIENCE
            while sum(worker.state == "idle" for worker in made.records()) < 2:
                assert time.monotonic() < end, (left.home / "log").read_text()
                time.sleep(0.1)
            yield made
    assert not [path for machine in (front, left, right) for path in machine.home.glob("*") if path.name[:3] != "log"]


def test_two_machines_share_the_work_and_one_goes_on_where_the_other_was_killed(studio: Studio) -> None:
    platform = studio.platform
    parameters = {"steps": 60, "count": 2, "delay": 0.05}
    undisturbed = platform.bytes(platform.wait(platform.submit(**parameters), "succeeded"))
    jobs = [platform.submit(**parameters) for _ in range(6)]
    for job_id in jobs:
        platform.at_step(job_id, 8)
    holders = {job_id: platform.job(job_id).worker for job_id in jobs}
    assert len(set(holders.values())) == 2, "one of them did all the work"
    lost = platform.job(jobs[0]).worker
    assert lost is not None
    worker = studio.process(lost)
    (engine,) = (p for p in worker.children(recursive=True) if p.name() == "perrin-engine")
    for process in (worker, engine):
        os.kill(process.pid, signal.SIGKILL)
    moved = [job_id for job_id, holder in holders.items() if holder == lost]
    # all of them first: they make the same bytes, and unlike S3 this server is not atomic while one puts them again
    done = [platform.wait(job_id, "succeeded") for job_id in jobs]
    for job_id, job in zip(jobs, done, strict=True):
        assert job.worker != lost
        assert platform.bytes(job) == undisturbed
        assert platform.tries(job) == (2 if job_id in moved else 1)
        ends = [event for event in platform.events(job_id) if event.state.terminal]
        assert len(ends) == 1
    for job_id in moved:
        events = platform.events(job_id)
        back = next(i for i, event in enumerate(events) if "lease ran out" in event.message)
        resumed = next(event for event in events[back:] if event.progress and event.progress.stage == "step")
        assert resumed.progress is not None
        assert resumed.progress.done >= 4, "it started over"
