"""A worker's clock is moved by an hour, forward and back, while it runs: nothing is committed twice, nobody is blamed.

With PostgreSQL one machine's clock is wrong and the others' are right. SQLite lies on one machine, so there it is the
clock of all.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from guard import Guard
from harness.backends import on_both_databases
from harness.checker import judge
from harness.clients import MENU, Clients, learn, submit
from harness.cluster import Backend, Cluster
from harness.processes import wait_for

HERE = Path(__file__).parent / "moved_clock"
HOUR = 3600


@on_both_databases
def test_a_clock_that_moves_by_an_hour_commits_nothing_twice(
    backend: Backend, guard: Guard, plugin: Path, rng: random.Random
) -> None:
    clock = guard.folder / f"clock-{backend.name}"
    set_clock(clock, 0)
    path = os.pathsep.join([str(HERE), str(plugin), os.environ.get("PYTHONPATH", "")])
    moved = {"PYTHONPATH": path, "PERRIN_CLOCK": str(clock)}
    whose = {"environment": moved} if backend.name == "sqlite" else {"preload": moved}
    with Cluster(guard, backend, plugin, workers=2, **whose) as cluster:
        learn(cluster, MENU[:3])
        cluster.history.clocks_moved = True
        clients = Clients(cluster, rng, target=3, threads=1)
        clients.start()
        for seconds in (HOUR, -HOUR):
            long = submit(cluster, {"seed": 400, "steps": 70, "delay": 0.06})
            began = time.time()
            set_clock(clock, seconds)
            assert time_of(moved) == pytest.approx(time.time() + seconds, abs=HOUR / 4)
            cluster.wait(long, "succeeded")
            cluster.history.broke("clock moved", "worker-0", since=began)
        wait_for(lambda: cluster.observer.succeeded() >= 10, "the clients get nothing")
        clients.stop()
        assert clients.errors == []
        cluster.settle()
        verdict = judge(cluster.history)
        assert verdict.ok, str(verdict)
        if backend.database is not None:
            assert {row["crashes"] for row in cluster.history.end.jobs} == {0}, "a lease is over when the store says so"


def set_clock(clock: Path, seconds: int) -> None:
    part = clock.with_suffix(".part")
    part.write_text(str(seconds))
    part.rename(clock)


def time_of(environment: dict[str, str]) -> float:
    """What a process with this environment takes for the time of day."""
    command = [sys.executable, "-c", "import time; print(time.time())"]
    return float(subprocess.run(command, env=os.environ | environment, capture_output=True, check=True).stdout)
