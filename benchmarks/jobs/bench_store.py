"""The job store: how fast it takes, hands out and finishes jobs, and how evenly it shares.

python benchmarks/jobs/bench_store.py                                    SQLite in a temporary folder
python benchmarks/jobs/bench_store.py --database postgresql://...        an empty PostgreSQL database
python benchmarks/jobs/bench_store.py --finished 100000 --queued 10000   a smaller crowd, for a quick look

Wanted: claim and finish of empty jobs 3,000/s; durable submits 1,500/s in lists, 300/s singly through the API; a claim
p99 below 10 ms among 1,000,000 finished and 100,000 queued jobs and at most twice that among 1,000 queued; GPU-seconds
within 10% of fair for users with 10, 100 and 1,000 jobs while all have work. All depend on how long the disk takes to
sync, so that is measured and printed as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from perrin.settings import Settings
from perrin_orchestration.prepare import local_key, prepare_store
from perrin_orchestration.sockets import address, bind
from perrin_orchestration.store import Done, JobStore, NewJob
from perrin_orchestration.store.database import execute

FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO jobs (
    id, user_id, modality, model, parameters, format, label, search, request_sha256, pool, priority, run_after, rank,
    state, event_count, created_at, finished_at)
SELECT :prefix || i, :user_id, 'image', 'm', '{}', 'png', '', '', '', 'image', 0, 0, i, :state, 1, i, :finished_at
FROM n
"""
"""Jobs without number: what the store has seen of them does not matter here."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="URL of an empty database; SQLite in a temporary folder if left out")
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=100_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), database_url=asked.database, min_free_mb=0, port=0)
        prepare_store(settings)
        key = local_key(settings)
        store = JobStore(settings.store_url)
        print(f"{store.database.dialect}; a sync takes {_sync(Path(folder)) * 1e3:.2f} ms here")
        user = store.people.add("bench").id
        new = NewJob(user, "image", "m", {}, "png", "image")
        _report("submits in lists of 100", _rate(100, lambda: store.submit_many([new] * 100)), "/s", 1500)
        _report("claim and finish, 256 at a time", _rate(256, lambda: _claim_and_finish(store)), "/s", 3000)
        _drop(store)
        _http(settings, key)
        _drop(store)
        _report("unfairness among 10, 100, 1,000 jobs", 100 * _unfairness(store), "%", 10, most=True)
        _drop(store)
        _claims(store, user, asked.finished, asked.queued)
        store.close()


def _sync(folder: Path) -> float:
    with (folder / "probe").open("wb") as stream:
        began = time.perf_counter()
        for _ in range(50):
            stream.write(b"x" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
        return (time.perf_counter() - began) / 50


def _report(what: str, found: float, unit: str, wanted: float, *, most: bool = False) -> None:
    good = found <= wanted if most else found >= wanted
    bound = "at most" if most else "at least"
    print(f"{what:48} {found:9.2f} {unit:3} wanted {bound} {wanted:g}{'' if good else '   MISSED'}", flush=True)


def _rate(count: int, work: Callable[[], object], seconds: float = 4.0) -> float:
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        done += count
    return done / (time.perf_counter() - began)


def _claim_and_finish(store: JobStore) -> None:
    """The jobs were submitted before; once they are all done, there is nothing to measure."""
    leases = [job.lease for job in store.claim("o", "w", ["image"], 256, 30.0)]
    if len(leases) < 256:
        raise SystemExit("too few jobs were submitted to measure their ends")
    store.start(*leases)
    store.committing(*leases)
    store.commit_many([Done(lease) for lease in leases])


def _drop(store: JobStore) -> None:
    for table in ("outbox", "events", "artifacts", "edges", "inputs", "costs", "jobs", "groups"):
        store.database.write(lambda c, t=table: c.exec_driver_sql(f"DELETE FROM {t}"))  # noqa: S608
    store.database.write(lambda c: execute(c, "UPDATE users SET used = 0, typical = 1, active = FALSE", {}))


def _http(settings: Settings, key: str) -> None:
    """A gateway in a process of its own, and 32 threads that submit."""
    with bind("127.0.0.1", 0) as listener:
        code = f"from perrin_orchestration.gateway.serve import serve; serve(descriptor={listener.fileno()})"
        environment = dict(os.environ, PERRIN_HOME=str(settings.home_path), PERRIN_LOG_LEVEL="error")
        environment |= {"PERRIN_MIN_FREE_MB": "0"}
        environment |= {"PERRIN_DATABASE_URL": settings.database_url} if settings.database_url else {}
        server = subprocess.Popen([sys.executable, "-c", code], pass_fds=[listener.fileno()], env=environment)
        job = {"modality": "image", "parameters": {"prompt": "a red apple", "seed": 7}}
        headers = {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=32)
        try:
            with httpx.Client(
                base_url=address(listener) + "/v1", headers=headers, trust_env=False, timeout=60, limits=limits
            ) as client:
                with ThreadPoolExecutor(32) as threads:
                    list(threads.map(lambda _: client.post("/jobs", json=job).raise_for_status(), range(500)))
                    began = time.perf_counter()
                    for answer in threads.map(lambda _: client.post("/jobs", json=job), range(1500)):
                        answer.raise_for_status()
                    _report(
                        "submits singly through the API, 32 at once", 1500 / (time.perf_counter() - began), "/s", 300
                    )
                group = {"jobs": [job] * 500}
                began = time.perf_counter()
                for _ in range(6):
                    client.post("/groups", json=group).raise_for_status()
                _report("submits through the API, in groups of 500", 3000 / (time.perf_counter() - began), "/s", 1500)
        finally:
            server.terminate()
            server.wait()


def _unfairness(store: JobStore) -> float:
    """Largest distance from a third of the GPU-seconds, relative, when the first user runs out of jobs."""
    users = [store.people.add(f"user{count}").id for count in (10, 100, 1000)]
    for user, count in zip(users, (10, 100, 1000), strict=True):
        store.submit_many([NewJob(user, "image", "m", {}, "png", "image")] * count)
    had, left = dict.fromkeys(users, 0.0), 10
    while left:
        (job,) = store.claim("o", "w", ["image"], 1, 30.0)
        store.charge({job.id: 1.0})
        had[job.user_id] += 1.0
        left -= job.user_id == users[0]
        store.fail(job.lease, "invalid", "of no account")
    fair = sum(had.values()) / 3
    return max(abs(seconds - fair) / fair for seconds in had.values())


def _claims(store: JobStore, user: str, finished: int, queued: int) -> None:
    began = time.perf_counter()
    values = {"user_id": user, "count": finished, "prefix": "f", "state": "succeeded", "finished_at": 1.0}
    store.database.write(lambda c: execute(c, FILL, values))
    _queue(store, user, 1000, "s")
    print(f"{finished} finished jobs written in {time.perf_counter() - began:.0f} s", flush=True)
    few = _percentiles(store, 400)
    _queue(store, user, queued, "m")
    many = _percentiles(store, 1000)
    _report(f"claim p99 among {queued} queued (p50 {many[0]:.2f})", many[1], "ms", 10, most=True)
    _report(f"the same among 1,000 (p50 {few[0]:.2f})", few[1], "ms", 10, most=True)
    _report("the ratio of the two p99", many[1] / few[1], "x", 2, most=True)
    _report("the ratio of the two p50", many[0] / few[0], "x", 2, most=True)


def _queue(store: JobStore, user: str, count: int, prefix: str) -> None:
    values = {"user_id": user, "count": count, "prefix": prefix, "state": "queued", "finished_at": None}
    store.database.write(lambda c: execute(c, FILL, values))
    if store.database.dialect == "postgresql":
        store.database.write(lambda c: c.exec_driver_sql("ANALYZE jobs"))


def _percentiles(store: JobStore, count: int) -> tuple[float, float]:
    """Milliseconds of a claim of one job: p50 and p99."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        (job,) = store.claim("o", "w", ["image"], 1, 1e9)
        times.append((time.perf_counter() - began) * 1e3)
        store.fail(job.lease, "invalid", "of no account")
    times.sort()
    return times[count // 2], times[int(count * 0.99)]


if __name__ == "__main__":
    main()
