"""How soon a job begins and how busy workers are kept, on each pair of database and broker, beside a plain Celery task.

python benchmarks/jobs/bench_latency.py                          all three: filesystem, redis, rabbitmq
python benchmarks/jobs/bench_latency.py redis --submits 20       one of them, for a quick look

Wanted: from a client's POST to the first step, model loaded and worker idle, p50 below 50 ms on Redis and 150 ms on
filesystem://; no worker without a job for over 1 s while one could be claimed. `filesystem` goes with SQLite, the other
two with a PostgreSQL of their own; all servers are private and end with this. The jobs are the tests' `dots`, which
notes the time of each step itself. The plain task does nothing but note the time: it is stored nowhere, so it is what
the broker alone can do, not a goal.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

DOUBLES = Path(__file__).parents[2] / "tests" / "doubles"
sys.path.insert(0, str(DOUBLES))

from guard import Guard  # noqa: E402
from outside import install  # noqa: E402
from servers import PostgreSQL, RabbitMQ, Redis  # noqa: E402

from perrin_orchestration import embedded  # noqa: E402

KINDS = ("filesystem", "redis", "rabbitmq")
BARS = {"filesystem": 150.0, "redis": 50.0}
"""Milliseconds from POST to first step, p50."""

EMPTY = {"modality": "dots", "format": "pgm", "parameters": {"steps": 1}}


@dataclass
class Platform:
    """A platform that runs, and what it was told."""

    client: httpx.Client
    home: Path
    trace: Path
    environment: Mapping[str, str]

    def post(self, path: str, body: Any) -> Any:
        answer = self.client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        answer.raise_for_status()
        return answer.json()

    def ended(self, job_id: str, pause: float = 0.02) -> Any:
        """The job, once it has ended."""
        while True:
            job = self.get(f"/jobs/{job_id}")
            if job["finished_at"]:
                if job["state"] != "succeeded":
                    raise SystemExit(f"a job ended {job['state']}: {job['error']}")
                return job
            time.sleep(pause)

    def first_step(self, seed: int) -> float:
        """When the job with this seed began its first step, by the clock of `time.monotonic`."""
        return _line(self.trace, lambda parts: parts[2:] == [str(seed), "0"])


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="BROKER", help=f"{', '.join(KINDS)}; all if left out")
    parser.add_argument("--submits", type=int, default=100, help="jobs whose beginning is timed")
    parser.add_argument("--empty", type=int, default=400, help="empty jobs, and plain tasks, for the rates")
    parser.add_argument("--load", type=float, default=40.0, help="seconds of random load on three workers")
    asked = parser.parse_args()
    if unknown := set(asked.kinds) - set(KINDS):
        parser.error(f"no broker of this kind: {', '.join(unknown)}; one of {', '.join(KINDS)}")
    for kind in asked.kinds or KINDS:
        with Guard() as guard, _platform(guard, kind) as platform:
            first, leased = _latency(platform, asked.submits)
            rate, held = _empty(platform, asked.empty)
            task, task_rate, lost = _plain(platform, asked.submits, asked.empty)
            idle = _longest_idle(platform, asked.load)
        print(f"{kind}", flush=True)
        _row("POST to first step, p50", _p(first, 50), "ms", BARS.get(kind))
        _row("the same, p99", _p(first, 99), "ms")
        _row("claimed to first step, p50", _p(leased, 50), "ms")
        _row("plain task, send to run, p50", _p(task, 50), "ms")
        _row("the same, p99", _p(task, 99), "ms")
        _row("an empty job, claimed to ended, p50", _p(held, 50), "ms")
        _row("empty jobs, submit to done", rate, "/s")
        _row("plain tasks, send to done", task_rate, "/s")
        _row("plain tasks that were lost", lost, "")
        _row("longest idle beside a claimable job, 3 workers", idle, "s", 1.0)


def _row(what: str, found: float, unit: str, most: float | None = None) -> None:
    wanted = "" if most is None else f" wanted at most {most:g}{'' if found <= most else '   MISSED'}"
    print(f"  {what:48} {found:9.2f} {unit:3}{wanted}", flush=True)


def _p(values: Iterable[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    found = sorted(values)
    return 1e3 * found[min(len(found) - 1, len(found) * percent // 100)]


# --- what is measured -------------------------------------------------------------------------------------------------


def _latency(platform: Platform, count: int) -> tuple[list[float], list[float]]:
    """Seconds from POST to first step of jobs that come to an idle worker, and from claim to first step."""
    for seed in range(5):  # the model is loaded, connections are open
        platform.ended(platform.post("/jobs", _empty_job(seed))["id"])
    whole, claimed = [], []
    for seed in range(1000, 1000 + count):
        time.sleep(random.uniform(0.2, 0.8))  # in step with nobody's polling
        began, wall = time.monotonic(), time.time()
        job_id = platform.post("/jobs", _empty_job(seed))["id"]
        step = platform.first_step(seed)
        whole.append(step - began)
        platform.ended(job_id)
        (attempt,) = platform.get(f"/jobs/{job_id}/history")
        claimed.append(step - began - (_seconds(attempt["claimed_at"]) - wall))
    return whole, claimed


def _empty(platform: Platform, count: int) -> tuple[float, list[float]]:
    """Empty jobs per second from submit to done, one worker; and seconds from claim to end of jobs that are alone."""
    held = []
    for seed in range(20):
        job = platform.ended(platform.post("/jobs", _empty_job(seed))["id"])
        (attempt,) = platform.get(f"/jobs/{job['id']}/history")
        held.append(_seconds(attempt["ended_at"]) - _seconds(attempt["claimed_at"]))
    began = time.monotonic()
    group = platform.post("/groups", {"jobs": [_empty_job(seed) for seed in range(count)]})
    for job in group["jobs"]:
        platform.ended(job["id"], 0.2)
    return count / (time.monotonic() - began), held


def _plain(platform: Platform, latencies: int, count: int) -> tuple[list[float], float, int]:
    """Seconds from send to run of a task that does nothing, how many run in a second, how many were lost."""
    import plain

    log = platform.home / "plain"
    command = [sys.executable, "-m", "celery", "-A", "plain", "worker", "-P", "solo", "--without-gossip"]
    environment = dict(os.environ) | platform.environment | {"PYTHONPATH": str(Path(__file__).parent)}
    environment |= {"PERRIN_BENCH_NOTE": str(log)}
    app = plain.make(platform.environment)
    with (platform.home / "plain.log").open("wb") as output:
        worker = subprocess.Popen([*command, "-Q", "plain"], env=environment, stdout=output, stderr=output)
    try:
        sent, began = {}, 0.0
        for number in range(-5, latencies):
            time.sleep(random.uniform(0.05, 0.2) if number > -5 else 5.0)  # it has to start first
            sent[number] = time.monotonic()
            app.send_task("note", (number,), queue="plain")
        time.sleep(2.0)
        began = time.monotonic()
        for number in range(latencies, latencies + count):
            app.send_task("note", (number,), queue="plain")
        while log.stat().st_mtime > time.time() - 5.0:
            time.sleep(0.2)
    finally:
        worker.terminate()
        worker.wait()
        app.close()
    ran = {int(number): float(at) for at, number in map(str.split, log.read_text().splitlines())}
    times = [ran[number] - at for number, at in sent.items() if number >= 0 and number in ran]
    done = [at for number, at in ran.items() if number >= latencies]
    return times, len(done) / (max(done) - began), latencies + 5 + count - len(ran)


def _longest_idle(platform: Platform, seconds: float) -> float:
    """Longest time that one of three workers held nothing while a job could be claimed, under a random load."""
    environment = dict(os.environ) | platform.environment
    command = [sys.executable, "-m", "perrin_orchestration", "worker"]
    with (platform.home / "workers.log").open("wb") as log:
        more = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(2)]
    try:
        while [worker["state"] for worker in platform.get("/workers")].count("idle") < 3:
            time.sleep(0.2)
        jobs, rng, end = [], random.Random(5), time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(rng.randint(1, 16)):
                steps, delay = rng.randint(1, 8), rng.uniform(0.0, 0.2)
                body = {**EMPTY, "parameters": {"steps": steps, "delay": delay, "seed": rng.randrange(2**31)}}
                jobs.append(platform.post("/jobs", body)["id"])
            time.sleep(rng.expovariate(1 / 1.5))
        for job_id in jobs:
            platform.ended(job_id, 0.2)
        return _idle([_history(platform, job_id) for job_id in jobs])
    finally:
        for process in more:
            process.terminate()
        for process in more:
            process.wait()


@dataclass(frozen=True)
class _Held:
    """A job's life: claimable from ``queued`` to ``claimed``, then held by ``worker`` until ``ended``."""

    worker: str
    queued: float
    claimed: float
    ended: float


def _history(platform: Platform, job_id: str) -> _Held:
    job, (attempt,) = platform.get(f"/jobs/{job_id}"), platform.get(f"/jobs/{job_id}/history")
    moments = (job["created_at"], attempt["claimed_at"], attempt["ended_at"])
    return _Held(attempt["worker"], *(_seconds(moment) for moment in moments))


def _idle(lives: list[_Held]) -> float:
    claimable = _union((life.queued, life.claimed) for life in lives)
    first, last = min(life.claimed for life in lives), max(life.ended for life in lives)
    longest = 0.0
    workers = {life.worker for life in lives}
    if len(workers) != 3:
        raise SystemExit(f"{len(workers)} of 3 workers had jobs: is the load too small?")
    for worker in workers:
        busy = [*_union((life.claimed, life.ended) for life in lives if life.worker == worker), (last, last)]
        free = first
        for begin, end in busy:
            longest = max([longest, *(min(begin, b) - max(free, a) for a, b in claimable)])
            free = end
    return longest


def _union(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


# --- what it is measured on -------------------------------------------------------------------------------------------


@contextmanager
def _platform(guard: Guard, kind: str) -> Iterator[Platform]:
    """A platform with one worker on the CPU."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(install(guard.folder)), os.environ.get("PYTHONPATH")]))
    home, trace = guard.folder / "home", guard.folder / "trace"
    os.environ["PERRIN_DOTS_TRACE"] = str(trace)
    settings: dict[str, Any] = {"device": "cpu", "threads": 1, "min_free_mb": 0, "log_level": "warning"}
    servers = []
    if kind != "filesystem":
        servers = [PostgreSQL(guard), (Redis if kind == "redis" else RabbitMQ)(guard)]
        for server in servers:
            server.start()
        settings |= {"database_url": f"{servers[0].url}/postgres", "broker_url": servers[1].url}
    environment = {f"PERRIN_{name.upper()}": str(value) for name, value in settings.items()}
    try:
        with embedded.platform(home, **settings) as (url, key):
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.Client(base_url=url + "/v1", headers=headers, trust_env=False, timeout=60) as client:
                yield Platform(client, home, trace, environment | {"PERRIN_HOME": str(home)})
    finally:
        for server in servers:
            server.stop("kill")


def _empty_job(seed: int) -> dict[str, Any]:
    return {**EMPTY, "parameters": {**EMPTY["parameters"], "seed": seed}}  # type: ignore[dict-item]


def _line(path: Path, wanted: Callable[[list[str]], bool]) -> float:
    """The time, at the start of the line of a trace that is wanted; waits for it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists():
            for line in reversed(path.read_text().splitlines(keepends=True)):
                if line.endswith("\n") and wanted(line.split()):
                    return float(line.split()[0])
        time.sleep(0.005)
    raise SystemExit(f"nothing came within a minute; see {path.parent}")


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    main()
