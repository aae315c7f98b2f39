"""A whole platform of real processes, as its users and its operator see it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from perrin.wire import EventRecord, JobRecord

__all__ = ["Platform"]


@dataclass
class Platform:
    """Jobs of ``dots`` through HTTP, and the processes under ``home``."""

    home: Path
    client: httpx.Client

    def submit(self, format: str = "pgm", **parameters: Any) -> str:
        body = {"modality": "dots", "parameters": {"seed": 7} | parameters, "format": format}
        answer = self.client.post("/jobs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> JobRecord:
        return JobRecord(**self.client.get(f"/jobs/{job_id}").json())

    def wait(self, job_id: str, *states: str, seconds: float = 180.0) -> JobRecord:
        end = time.monotonic() + seconds
        while True:
            job = self.job(job_id)
            if job.state.value in states or (not states and job.state.terminal):
                return job
            assert not job.state.terminal, f"{job.state}: {job.error}"
            assert time.monotonic() < end, f"{job_id} is {job.state} after {seconds} s"
            time.sleep(0.05)

    def at_step(self, job_id: str, step: int) -> JobRecord:
        end = time.monotonic() + 120
        while True:
            job = self.job(job_id)
            if job.progress is not None and job.progress.stage == "step" and job.progress.done >= step:
                return job
            assert time.monotonic() < end, f"step {step} not reached: {job}"
            time.sleep(0.05)

    def bytes(self, job: JobRecord) -> list[bytes]:
        return [self.client.get(f"/artifacts/{artifact.id}").content for artifact in job.artifacts]

    def events(self, job_id: str) -> list[EventRecord]:
        lines = self.client.get(f"/jobs/{job_id}/events").text.splitlines()
        return [EventRecord(**json.loads(line[5:])) for line in lines if line.startswith("data:")]

    def pid(self, name: str) -> int:
        return int(json.loads((self.home / "run.json").read_text())["pids"][name])

    def engine(self) -> psutil.Process:
        below = psutil.Process(self.pid("worker")).children(recursive=True)
        (engine,) = (process for process in below if process.name() == "perrin-engine")
        return engine

    def idle(self) -> None:
        end = time.monotonic() + 120
        while not any(worker["state"] == "idle" for worker in self.client.get("/workers").json()):
            assert time.monotonic() < end, "no idle worker"
            time.sleep(0.05)
