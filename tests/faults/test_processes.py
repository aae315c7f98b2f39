"""Processes are killed, stopped, crash by themselves: at every moment of a job's life."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from harness.backends import on_both_databases
from harness.breaking import frozen, kill_engine, kill_worker, send_signal
from harness.clients import MENU, meet, submit
from harness.cluster import Cluster
from harness.observer import Holding
from harness.processes import engines_of, wait_for

TWICE = range(2)

Moment = tuple[Mapping[str, Any], Callable[[Holding], bool]]

MOMENTS: dict[str, Moment] = {
    "loading": (MENU[5], lambda found: found.stage in (None, "load", "encode")),
    "sampling": (MENU[1], lambda found: found.stage == "step" and found.done >= 5),
    "writing": (MENU[4], lambda found: found.stage in ("decode", "write")),
    "committing": (MENU[6], lambda found: found.state == "committing"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_killed_at_any_moment_costs_no_job(judged: Cluster, rng: random.Random, moment: str) -> None:
    parameters, where = MOMENTS[moment]
    for kill in (kill_engine, kill_worker):
        for _ in range(20):
            found = meet(judged, parameters, where)
            worker = judged.worker_of(found)
            assert worker is not None
            time.sleep(rng.random() * 0.02)
            kill(judged, worker, f"kill {moment}")
            row = judged.wait(found.job, "succeeded")
            judged.ready()
            if row["epoch"] >= 2 or moment in ("writing", "committing"):  # these may have been over a moment before
                break
        else:
            raise AssertionError("twenty jobs were over before the signal came")


def test_a_process_killed_right_after_its_commit_does_nothing_twice(judged: Cluster, rng: random.Random) -> None:
    for kill in (kill_engine, kill_worker):
        found = meet(judged, MENU[0])
        job_id, worker = found.job, judged.worker_of(found)
        assert worker is not None
        wait_for(lambda: judged.observer.job(job_id)["finished_at"], "not committed", pause=0.001)  # noqa: B023
        time.sleep(rng.random() * 0.005)
        kill(judged, worker, "kill after commit")
        events = judged.observer.events(job_id)
        judged.ready()
        time.sleep(0.5)
        assert judged.observer.events(job_id) == events
        assert judged.tries(job_id) == 1


@on_both_databases
@pytest.mark.parametrize("whom", ["engine", "supervisor", "both"])
def test_a_stopped_process_that_wakes_after_its_lease_writes_nothing(
    judged: Cluster, rng: random.Random, whom: str
) -> None:
    steps = 130 if whom == "supervisor" else 90  # its engine goes on meanwhile
    parameters = {"seed": 100, "steps": steps, "delay": 0.06}
    found = meet(judged, parameters, lambda found: found.stage == "step" and found.done > 3)
    worker = judged.worker_of(found)
    assert worker is not None
    with frozen(judged, worker, whom):
        wait_for(lambda: judged.observer.job(found.job).get("epoch", 0) >= 2, "nobody took it over")
        time.sleep(rng.uniform(0.0, 0.6))
    judged.wait(found.job, "succeeded")


@on_both_databases
def test_a_job_that_crashes_its_process_is_quarantined_after_three_and_its_neighbours_live(judged: Cluster) -> None:
    parameters = {"trouble": "crash", "steps": 4, "delay": 0.05}
    crashers = [submit(judged, parameters | {"seed": i}) for i in TWICE]
    judged.history.harmful |= set(crashers)
    neighbours = [submit(judged, MENU[i]) for i in (0, 1, 3)]
    for job_id in crashers:
        row = judged.wait(job_id, "quarantined")
        assert (row["crashes"], row["error_kind"]) == (3, "crash")
        assert "SIGSEGV" in row["error_message"]
    for job_id in neighbours:
        judged.wait(job_id, "succeeded")
    starts = [worker.starts for worker in judged.workers]
    judged.ready()
    assert [worker.starts for worker in judged.workers] == starts, "the supervisors lived on"


@on_both_databases
def test_a_job_that_wants_too_much_memory_is_tried_once_more_and_fails(judged: Cluster) -> None:
    jobs = [submit(judged, {"trouble": "memory", "steps": 4, "seed": i}) for i in TWICE]
    for job_id in jobs:
        row = judged.wait(job_id, "failed")
        assert (judged.tries(job_id), row["error_kind"], row["crashes"]) == (2, "memory", 0)
        assert "wanted 3 TiB" in row["error_message"]


@on_both_databases
def test_the_out_of_memory_killer_counts_as_a_crash(judged: Cluster) -> None:
    """What it does is send SIGKILL to the process that it chose; so does this."""
    found = meet(judged, MENU[1] | {"steps": 60}, lambda found: found.stage == "step")
    worker = judged.worker_of(found)
    assert worker is not None
    held = judged.held_by(worker)
    send_signal(engines_of(worker.pid), 9)
    judged.history.broke("out of memory", worker.name, held)
    row = judged.wait(found.job, "succeeded")
    assert row["crashes"] == 1
    assert any("SIGKILL" in event["message"] for event in judged.observer.events(found.job))
