"""A strict job of the shipped image model, taken over in mid-sampling, ends with the bytes of an undisturbed one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from platforms import running

from perrin.client import Client
from perrin.handles import Job

WANTED = {"prompt": "a red apple", "seed": 3, "sampler": "euler_ancestral", "steps": 150, "strict": True}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    home = tmp_path_factory.mktemp("home")
    with running(home, lease_seconds=5.0, save_seconds=0.2) as made, Client(made.url, api_key=made.key) as client:
        yield client, home


def at_step(job: Job, step: int) -> None:
    end = time.monotonic() + 200
    while True:
        record = job.refresh()
        if record.progress is not None and record.progress.stage == "step" and record.progress.done >= step:
            return
        assert time.monotonic() < end, record
        time.sleep(0.05)


def test_a_taken_over_job_ends_with_the_same_bytes(platform: tuple[Client, Path]) -> None:
    client, home = platform
    alone = client.submit("image", **WANTED)
    alone.wait()
    (undisturbed,) = [artifact.bytes() for artifact in alone.artifacts]

    others = [client.submit("image", prompt="pizza", seed=seed, steps=150, sampler="ddim") for seed in (1, 2)]
    job = client.submit("image", **WANTED)
    at_step(job, 40)
    worker = psutil.Process(int(json.loads((home / "run.json").read_text())["pids"]["worker"]))
    (engine,) = (process for process in worker.children(recursive=True) if process.name() == "perrin-engine")
    engine.kill()

    job.wait()
    (taken_over,) = [artifact.bytes() for artifact in job.artifacts]
    assert taken_over == undisturbed
    events = list(job.events())
    done = [event.progress.done for event in events if event.progress and event.progress.stage == "step"]
    steps = [done[i] for i in range(1, len(done)) if done[i] < done[i - 1]]
    assert all(step > 0 for step in steps), "it went on from a saved row"
    assert {other.wait().state.value for other in others} == {"succeeded"}
