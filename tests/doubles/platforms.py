"""A whole platform of real processes, as its users and its operator see it."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from perrin.wire import EventRecord, JobRecord
from perrin_orchestration import embedded

__all__ = ["PATIENCE", "Platform", "running", "vanish"]

PATIENCE = 120.0
"""Seconds that a test waits for what must come. Nothing takes so long, but on a machine that has other things to do."""


def vanish(folder: Path) -> None:
    """Delete a folder under the hands of those who write to it: at once, and they cannot keep it."""
    gone = folder.with_name(f"gone-{uuid.uuid4().hex}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def running(home: Path, **settings: Any) -> Iterator[Platform]:
    """A platform of its own under ``home``, on the CPU."""
    with embedded.platform(home, **{"device": "cpu", "min_free_mb": 1} | settings) as (url, key):
        headers, transport = {"Authorization": f"Bearer {key}"}, httpx.HTTPTransport(retries=3)
        with httpx.Client(base_url=url + "/v1", headers=headers, transport=transport, timeout=90) as client:
            yield Platform(home, client, url, key)


@dataclass
class Platform:
    """Jobs of ``dots`` through HTTP, and the processes under ``home``."""

    home: Path
    client: httpx.Client
    url: str = ""
    key: str = ""

    def announce(self, patch: pytest.MonkeyPatch) -> None:
        """Tell SDK and command line where it is."""
        for name, value in {"PERRIN_URL": self.url, "PERRIN_API_KEY": self.key, "PERRIN_HOME": str(self.home)}.items():
            patch.setenv(name, value)

    def submit(self, format: str = "pgm", **parameters: Any) -> str:
        body = {"modality": "dots", "parameters": {"seed": 7} | parameters, "format": format}
        answer = self.client.post("/jobs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> JobRecord:
        return JobRecord(**self.client.get(f"/jobs/{job_id}").json())

    def wait(self, job_id: str, *states: str, seconds: float = PATIENCE) -> JobRecord:
        end = time.monotonic() + seconds
        while True:
            job = self.job(job_id)
            if job.state.value in states or (not states and job.state.terminal):
                return job
            assert not job.state.terminal, f"{job.state}: {job.error}"
            assert time.monotonic() < end, f"{job_id} is {job.state} after {seconds} s"
            time.sleep(0.05)

    def at_step(self, job_id: str, step: int) -> JobRecord:
        """Wait until the job has come so far, which must leave it enough to do for the test to find it still at it."""
        end = time.monotonic() + PATIENCE
        while True:
            job = self.job(job_id)
            assert not job.state.terminal, f"it was over before it was seen at step {step}: {job}"
            if job.progress is not None and job.progress.stage == "step" and job.progress.done >= step:
                return job
            assert time.monotonic() < end, f"step {step} not reached: {job}"
            time.sleep(0.05)

    def bytes(self, job: JobRecord) -> list[bytes]:
        return [self.client.get(f"/artifacts/{artifact.id}").content for artifact in job.artifacts]

    def events(self, job_id: str) -> list[EventRecord]:
        lines = self.client.get(f"/jobs/{job_id}/events").text.splitlines()
        return [EventRecord(**json.loads(line[5:])) for line in lines if line.startswith("data:")]

    def tries(self, job: JobRecord) -> int:
        """How often it was begun. A worker for which the store is too slow to keep a lease gives the job back, and
        nobody is to blame: on a busy machine that happens, and does not count.
        """
        return job.attempts - sum("released by its worker" in event.message for event in self.events(job.id))

    def pid(self, name: str) -> int:
        return int(json.loads((self.home / "run.json").read_text())["pids"][name])

    def engine(self) -> psutil.Process:
        """The worker's only engine process, once there is one."""
        end = time.monotonic() + PATIENCE
        while True:
            found = list(self._engines())
            if len(found) == 1:
                return found[0]
            assert time.monotonic() < end, f"{len(found)} engines"
            time.sleep(0.05)

    def _engines(self) -> Iterator[psutil.Process]:
        with suppress(psutil.NoSuchProcess, KeyError):
            for process in psutil.Process(self.pid("worker")).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.name() == "perrin-engine" and process.status() != psutil.STATUS_ZOMBIE:
                        yield process

    def idle(self) -> None:
        """Wait until a worker has nothing to do."""
        end = time.monotonic() + PATIENCE
        while not any(worker["state"] == "idle" for worker in self.client.get("/workers").json()):
            assert time.monotonic() < end, "no idle worker"
            time.sleep(0.05)
