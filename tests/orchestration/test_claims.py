"""Several processes at one store: each job is claimed once, and nobody waits for a lock in vain."""

from __future__ import annotations

import subprocess
import sys

from perrin_orchestration.store import JobStore, NewJob, User, rows

WORK = """
import sys, uuid
from perrin_orchestration.store import JobStore
store, owner = JobStore(sys.argv[1]), uuid.uuid4().hex
sys.stdin.readline()
while jobs := store.claim(owner, "w", ["dots"], 3, 30.0):
    for job in jobs:
        store.start(job.lease)
        store.committing(job.lease)
        store.commit(job.lease, [])
        print(job.id, job.epoch)
"""


def test_every_job_is_claimed_by_exactly_one_of_several_processes(store_url: str) -> None:
    store = JobStore(store_url)
    user: User = store.people.add("ann")
    jobs = store.submit_many([NewJob(user.id, "dots", "dots-1", {}, "pgm", "dots")] * 200)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, store_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    lines = []
    for worker in workers:  # all are told to begin before any is waited for
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        out, _ = worker.communicate(timeout=240)
        assert worker.returncode == 0
        lines += [tuple(line.split()) for line in out.splitlines()]
    assert sorted(lines) == sorted((job.id, "1") for job in jobs)
    assert store.counts()[0][:3] == ("succeeded", "dots", 200)
    ends = store.database.read(lambda c: rows.select(c, "SELECT job_id FROM events WHERE state = 'succeeded'"))
    assert len(ends) == 200
    store.close()
