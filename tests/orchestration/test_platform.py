"""A whole platform of real processes: jobs through HTTP to files, and what happens when something is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from platforms import PATIENCE, Platform, running, vanish

from perrin.errors import Conflict
from perrin.settings import Settings
from perrin.wire import EventRecord, JobState
from perrin_orchestration import embedded
from perrin_orchestration.transport import HintSender, make_app

LEASE = 5.0

BUSY = 5.0
"""How much longer than promised anything may take, on a machine that has four other things to do."""

LONG = {"steps": 30, "count": 2, "delay": 0.1}
"""A job of three seconds, which can be met on its way."""


@pytest.fixture(scope="module")
def platform(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("home")
    with running(home, lease_seconds=LEASE, save_seconds=0.1) as made:
        yield made
    for log in sorted((home / "logs").glob("*.log")):
        assert made.key not in log.read_text()
    assert not (home / "run.json").exists()


@pytest.fixture(scope="module")
def undisturbed(platform: Platform) -> list[bytes]:
    """What a long job gives when nothing goes wrong."""
    return platform.bytes(platform.wait(platform.submit(**LONG), "succeeded"))


def test_a_job_goes_from_http_to_files_that_carry_what_made_them(platform: Platform) -> None:
    job = platform.wait(platform.submit(count=2, radius=4), "succeeded")
    assert [(artifact.name, artifact.items) for artifact in job.artifacts] == [("0.pgm", [0]), ("1.pgm", [1])]
    first, second = platform.bytes(job)
    assert first.startswith(b"P5\n# ")
    assert first != second
    metadata = job.artifacts[1].metadata
    assert (metadata["model"], metadata["parameters"]["seed"], metadata["parameters"]["count"]) == ("dots-1", 8, 1)
    alone = platform.wait(platform.submit(seed=8, radius=4), "succeeded")
    assert platform.bytes(alone) == [second]
    (worker,) = platform.client.get("/workers").json()
    assert job.worker == worker["id"]
    assert worker["models"] == ["dots-1"]
    assert worker["device"] == "cpu"


def test_one_file_may_hold_all_items(platform: Platform) -> None:
    job = platform.wait(platform.submit(format="txt", count=3), "succeeded")
    assert [(artifact.name, artifact.items) for artifact in job.artifacts] == [("all.txt", [0, 1, 2])]
    assert platform.client.get(f"/artifacts/{job.artifacts[0].id}").headers["content-type"].startswith("text/plain")


def test_states_and_stages_come_in_their_order(platform: Platform) -> None:
    job_id = platform.submit(steps=5)
    platform.wait(job_id, "succeeded")
    events = platform.events(job_id)
    states = list(dict.fromkeys(event.state.value for event in events))
    assert states == ["queued", "leased", "running", "committing", "succeeded"]
    stages = list(dict.fromkeys(event.progress.stage for event in events if event.progress))
    assert stages == sorted(stages, key=["load", "encode", "step", "decode", "write"].index)
    assert [event.number for event in events] == list(range(1, len(events) + 1))


def test_a_preview_can_be_seen_while_it_runs(platform: Platform) -> None:
    job_id = platform.submit(steps=1000, delay=0.05)
    with platform.client.stream("GET", f"/jobs/{job_id}/events") as told:
        events = (EventRecord(**json.loads(line[5:])) for line in told.iter_lines() if line.startswith("data:"))
        assert any(event.kind == "preview" for event in events)
    assert platform.client.get(f"/jobs/{job_id}/preview").content.startswith(b"\x89PNG")
    platform.client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    platform.wait(job_id, "cancelled")


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        ("fail", "error", "RuntimeError: the dots fell off"),
        ("memory", "memory", "MemoryError: wanted 3 TiB"),
        ("degenerate", "degenerate", "the picture is one flat colour"),
    ],
)
def test_what_goes_wrong_is_named(platform: Platform, trouble: str, kind: str, message: str) -> None:
    job = platform.wait(platform.submit(trouble=trouble), "failed")
    assert job.error is not None
    assert (job.error.kind, job.error.message, job.artifacts) == (kind, message, [])


def test_cancel_stops_a_running_job_within_a_second_and_a_queued_one_at_once(platform: Platform) -> None:
    running = [platform.submit(steps=1000, delay=0.02) for _ in range(4)]
    queued = platform.submit()
    for job_id in running:
        platform.at_step(job_id, 1)
    assert platform.job(queued).position == 0
    assert platform.client.post(f"/jobs/{queued}/cancel").json()["state"] == "cancelled"
    for job_id in running:
        began = time.monotonic()
        assert platform.client.post(f"/jobs/{job_id}/cancel").json()["cancel_requested"]
        platform.wait(job_id, "cancelled")
        assert time.monotonic() - began < 1.0 * BUSY
    assert platform.engine().is_running()


def test_a_killed_engine_goes_on_from_the_saved_row_to_the_same_bytes(
    platform: Platform, undisturbed: list[bytes]
) -> None:
    job_id = platform.submit(**LONG)
    platform.at_step(job_id, 8)
    killed = platform.engine()
    killed.kill()
    job = platform.wait(job_id, "succeeded")
    assert (platform.tries(job), job.epoch) == (2, job.attempts)
    assert platform.bytes(job) == undisturbed
    events = platform.events(job_id)
    back = next(i for i, event in enumerate(events) if "SIGKILL" in event.message)
    resumed = next(event for event in events[back:] if event.progress and event.progress.stage == "step")
    assert resumed.progress is not None
    assert resumed.progress.done >= 4, "it started over"
    assert [event.state for event in events if event.state.terminal] == [JobState.SUCCEEDED]
    assert platform.engine().pid != killed.pid


def test_a_killed_worker_is_replaced_and_its_lease_runs_out(platform: Platform, undisturbed: list[bytes]) -> None:
    job_id = platform.submit(**LONG)
    platform.at_step(job_id, 6)
    engine = platform.engine()
    os.kill(platform.pid("worker"), signal.SIGKILL)
    engine.wait(PATIENCE)  # it dies with its supervisor
    job = platform.wait(job_id, "succeeded")
    assert platform.tries(job) == 2
    assert platform.bytes(job) == undisturbed
    platform.idle()


def test_a_stopped_worker_that_wakes_after_its_lease_writes_nothing(platform: Platform) -> None:
    job_id = platform.submit(steps=30, delay=0.1)
    platform.at_step(job_id, 3)
    worker, engine = psutil.Process(platform.pid("worker")), platform.engine()
    worker.suspend()
    engine.suspend()
    time.sleep(LEASE + 0.5)
    engine.resume()
    worker.resume()
    job = platform.wait(job_id, "succeeded")
    ends = [event for event in platform.events(job_id) if event.state.terminal]
    assert len(ends) == 1
    assert len(job.artifacts) == 1


def test_a_job_that_crashes_its_process_is_quarantined_and_its_neighbour_lives(platform: Platform) -> None:
    crasher = platform.submit(trouble="crash", steps=4, delay=0.05)
    neighbour = platform.submit(steps=40, delay=0.05)
    job = platform.wait(crasher, "quarantined")
    assert job.error is not None
    assert (job.error.kind, platform.tries(job)) == ("crash", 3)
    assert "SIGSEGV" in job.error.message
    assert platform.wait(neighbour, "succeeded").error is None


def test_a_crash_that_happens_once_is_got_over(platform: Platform, tmp_path: Path) -> None:
    job = platform.wait(platform.submit(trouble="crash", once=str(tmp_path / "done"), steps=6), "succeeded")
    assert platform.tries(job) == 2


def test_an_engine_that_hangs_is_killed_before_its_lease_ends(platform: Platform, tmp_path: Path) -> None:
    job_id = platform.submit(trouble="hang", once=str(tmp_path / "done"), steps=6)
    assert platform.tries(platform.wait(job_id, "succeeded")) >= 2
    ends = [
        event.message for event in platform.events(job_id) if "SIGKILL" in event.message or "ran out" in event.message
    ]
    assert "SIGKILL" in ends[0]


def test_a_saved_state_that_was_changed_costs_only_time(platform: Platform, undisturbed: list[bytes]) -> None:
    job_id = platform.submit(**LONG)
    platform.at_step(job_id, 8)
    platform.engine().suspend()
    for path in (platform.home / "artifacts" / "states" / job_id).iterdir():
        path.write_bytes(b"not what was saved")
    platform.engine().kill()
    assert platform.bytes(platform.wait(job_id, "succeeded")) == undisturbed


def test_the_broker_may_vanish(platform: Platform) -> None:
    platform.idle()
    vanish(platform.home / "broker")
    began = time.monotonic()
    platform.wait(platform.submit(), "succeeded")
    assert time.monotonic() - began < 5 * BUSY
    platform.wait(platform.submit(), "succeeded")


def test_the_same_hint_a_hundred_times_is_one_claim(platform: Platform) -> None:
    sender = make_app(Settings(home=platform.home))
    hints = HintSender(sender, NoOutbox())
    job_id = platform.submit(steps=20, delay=0.02)
    assert all(hints.send("dots") for _ in range(100))
    assert platform.tries(platform.wait(job_id, "succeeded")) == 1
    sender.close()


class NoOutbox:
    def pending_hints(self) -> dict[str, int]:
        return {}

    def hinted(self, pool: str, last: int) -> None:
        raise AssertionError


def test_a_gateway_that_dies_under_a_stream_costs_no_event(platform: Platform) -> None:
    job_id = platform.submit(steps=40, delay=0.1)
    seen: list[int] = []
    breaks, over, killed = 0, False, False
    end = time.monotonic() + PATIENCE
    while not over:
        try:
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
            with platform.client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        event = EventRecord(**json.loads(line[5:]))
                        seen.append(event.number)
                        over = event.state.terminal
                        if len(seen) > 2 and not killed:
                            os.kill(platform.pid("gateway"), signal.SIGKILL)
                            killed = True
        except httpx.TransportError:
            breaks += 1
            assert time.monotonic() < end, "no gateway came in its place"
            time.sleep(0.2)
    assert breaks >= 1
    assert seen == list(range(1, len(seen) + 1))
    assert platform.job(job_id).state is JobState.SUCCEEDED


def test_nothing_is_left_behind_by_jobs_that_are_over(platform: Platform) -> None:
    platform.idle()
    folders = [platform.home / "artifacts" / name for name in ("staging", "previews", "states")]
    end = time.monotonic() + PATIENCE
    while left := [path for folder in folders for path in folder.glob("*")]:  # the worker removes them when it has time
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_postgresql_holds_the_jobs_as_well(dots: Path, postgres_empty: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url=postgres_empty) as made:
        job = made.wait(made.submit(count=2), "succeeded")
        assert len(made.bytes(job)) == 2
        assert not (tmp_path / "perrin.db").exists()
        with pytest.raises(Conflict, match="runs already"), embedded.platform(tmp_path):
            pass


def test_a_stop_signal_to_all_is_the_supervisors_to_carry_out(platform: Platform) -> None:
    platform.idle()
    worker = psutil.Process(platform.pid("worker"))
    servers = [process for process in worker.children() if process.name() != "perrin-engine"]
    engine = platform.engine()
    for server in servers:
        server.terminate()
    job = platform.wait(platform.submit(), "succeeded")
    assert all(server.is_running() for server in servers)
    assert (platform.engine(), platform.tries(job)) == (engine, 1)


def test_a_fork_server_that_died_takes_its_engines_along_and_is_started_again(
    platform: Platform, undisturbed: list[bytes]
) -> None:
    job_id = platform.submit(**LONG)
    platform.at_step(job_id, 3)
    engine = platform.engine()
    engine.parent().kill()
    job = platform.wait(job_id, "succeeded")
    assert platform.bytes(job) == undisturbed
    assert not engine.is_running()
