"""What a user sees of faults: cancels that race a commit, results that were changed on disk, streams that break off."""

from __future__ import annotations

import random
import threading
import time

import pytest
from harness.backends import on_both_databases
from harness.breaking import kill_gateway
from harness.clients import MENU, cancel, meet, submit
from harness.cluster import Cluster
from harness.processes import wait_for

from perrin.client import Client
from perrin.errors import StorageError

TWICE = range(2)


@on_both_databases
def test_of_a_cancel_and_a_commit_exactly_one_wins(judged: Cluster, rng: random.Random) -> None:
    for _ in range(6):
        parameters = {"seed": 17, "steps": 2, "count": 24}
        job_id = meet(judged, parameters, lambda found: found.state == "committing").job
        time.sleep(rng.random() * 0.03)
        answer = cancel(judged, job_id)
        row = judged.wait(job_id)
        assert (answer, row["state"]) in {("acknowledged", "cancelled"), ("refused", "succeeded")}


@on_both_databases
def test_bytes_that_changed_on_disk_are_not_given_out(judged: Cluster, rng: random.Random) -> None:
    client = Client(judged.url, judged.key)
    for _ in TWICE:
        job = client.job(submit(judged, MENU[1]))
        judged.wait(job.id, "succeeded")
        artifact = rng.choice(job.artifacts)
        (path,) = (judged.home / "artifacts" / "blobs").rglob(artifact.record.sha256)
        right = path.read_bytes()
        wrong = bytearray(right)
        wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
        path.write_bytes(wrong)
        answer = judged.http.get(f"/artifacts/{artifact.record.id}")
        assert answer.status_code == 507
        assert "has changed" in answer.json()["error"]["message"]
        with pytest.raises(StorageError, match="has changed"):
            artifact.bytes()
        path.unlink()
        with pytest.raises(StorageError, match="is gone from the artifact store"):
            artifact.bytes()
        path.write_bytes(right)
        assert artifact.bytes() == right
    client.close()


@on_both_databases
def test_a_gateway_that_dies_under_a_stream_costs_no_event(judged: Cluster, rng: random.Random) -> None:
    def kill() -> None:
        for _ in TWICE:
            time.sleep(rng.uniform(0.3, 0.8))
            kill_gateway(judged)
            wait_for(lambda: judged.get("/health"), "no gateway")

    client = Client(judged.url, judged.key)
    job = client.job(submit(judged, {"seed": 301, "steps": 80, "delay": 0.06}))
    killer = threading.Thread(target=kill)
    killer.start()
    seen = [(event.number, event.state) for event in job.events()]
    killer.join()
    assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
    assert [state for _, state in seen if state.terminal] == ["succeeded"]
    assert len(seen) == judged.observer.job(job.id)["event_count"]
    client.close()
