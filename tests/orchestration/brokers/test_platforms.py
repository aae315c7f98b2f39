"""Whole platforms on Redis and RabbitMQ: jobs however long run once, and Celery answers while they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from guard import Guard
from platforms import running
from servers import RabbitMQ, Redis

from perrin.settings import Settings
from perrin_orchestration.transport import EXPIRES, make_app


@dataclass
class Platform:
    client: httpx.Client
    app: Any
    trace: Path

    def submit(self, **parameters: Any) -> str:
        answer = self.client.post("/jobs", json={"modality": "dots", "format": "pgm", "parameters": parameters})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def get(self, path: str) -> Any:
        return self.client.get(path).json()

    def wait(self, job_id: str, state: str, seconds: float) -> Any:
        end = time.monotonic() + seconds
        while (job := self.get(f"/jobs/{job_id}"))["state"] != state:
            assert job["finished_at"] is None, job
            assert time.monotonic() < end, f"{job_id} is {job['state']} after {seconds} s"
            time.sleep(0.1)
        return job

    def ran_once(self, job_id: str, seed: int, steps: int) -> None:
        """One attempt, one set of events, each step taken once."""
        job, history = self.get(f"/jobs/{job_id}"), self.get(f"/jobs/{job_id}/history")
        assert (job["attempts"], job["epoch"], len(history)) == (1, 1, 1)
        lines = self.client.get(f"/jobs/{job_id}/events").text.splitlines()
        assert [line[7:] for line in lines if line.startswith("event:")].count("state") == 5
        rows = [line.split()[3] for line in self.trace.read_text().splitlines() if line.split()[2] == str(seed)]
        assert rows == [str(row) for row in range(steps)]


@contextmanager
def platform(home: Path, server: Redis | RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform whose hints go through ``server``."""
    trace = home / "trace"
    monkeypatch.setenv("PERRIN_DOTS_TRACE", str(trace))
    app = make_app(Settings(home=home, broker_url=server.url))
    with running(home, broker_url=server.url) as made:
        yield Platform(made.client, app, trace)
    app.close()


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard() as made:
        yield made


@pytest.mark.usefixtures("dots")
def test_a_job_longer_than_redis_waits_for_an_acknowledgement_runs_once_and_celery_answers_meanwhile(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Redis.needed()
    server = Redis(guard)
    server.start()
    with platform(tmp_path, server, monkeypatch) as made:
        steps = int(2.2 * 2 * EXPIRES)  # 2 EXPIRES is the visibility timeout, looked at every 10 s
        job_id = made.submit(seed=11, steps=steps, delay=1.0)
        made.wait(job_id, "running", 120)
        for _ in range(3):
            (answer,) = made.app.control.ping(timeout=60.0, limit=1)
            assert list(answer.values()) == [{"ok": "pong"}]
        (queues,) = made.app.control.inspect(timeout=60.0, limit=1).active_queues().values()
        assert "perrin.dots" in [queue["name"] for queue in queues]
        made.wait(job_id, "succeeded", steps + 120)
        made.ran_once(job_id, 11, steps)
    server.stop("kill")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("dots")
def test_a_job_of_three_times_rabbitmqs_consumer_timeout_runs_once(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RabbitMQ.needed()
    server = RabbitMQ(guard, {"consumer_timeout": 60_000})
    server.start()
    with platform(tmp_path, server, monkeypatch) as made:
        job_id = made.submit(seed=12, steps=20, delay=10.0)
        made.wait(job_id, "succeeded", 300)
        made.ran_once(job_id, 12, 20)
        job = made.get(f"/jobs/{job_id}")
        print("ran from", job["started_at"], "to", job["finished_at"])
        (answer,) = made.app.control.ping(timeout=60.0, limit=1)
        assert list(answer.values()) == [{"ok": "pong"}]
    logs = "".join(path.read_text() for path in Path(server.folder / "log").glob("*.log"))
    assert "timed out" not in logs.lower(), logs
    server.stop("kill")
