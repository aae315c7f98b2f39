"""The servers that jobs and hints lie in go away, come back, fall silent, forget, or answer too late."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from guard import Guard
from harness.backends import on_both_databases, on_postgresql, on_servers
from harness.breaking import delete_broker, flush_broker, hold_database, restart_broker, silence
from harness.checker import CLAIM_SECONDS, RECONCILER_SECONDS, SLACK_SECONDS, judge
from harness.clients import MENU, Clients, meet, submit
from harness.cluster import Backend, Cluster
from harness.processes import engines_of, wait_for

from perrin.settings import Settings
from perrin_orchestration.store import JobStore
from perrin_orchestration.transport import HintSender, make_app

TWICE = range(2)

BUSY = 4.0
"""How much longer than promised anything may take, on a machine that has four other things to do."""

GRACE = 0.5
"""Seconds that such a machine may take to stop what was told to."""

Breaker = Callable[[Cluster, random.Random], object]


@contextmanager
def at_work(cluster: Cluster, rng: random.Random) -> Iterator[None]:
    clients = Clients(cluster, rng, target=5)
    clients.start()
    try:
        yield
    finally:
        clients.stop()
    assert clients.errors == []


@pytest.mark.parametrize("how", [flush_broker, delete_broker])
def test_a_broker_that_forgets_everything_costs_no_job(judged: Cluster, rng: random.Random, how: Breaker) -> None:
    see_jobs_through(judged, rng, how)


@on_servers
def test_a_broker_that_restarts_costs_no_job(judged: Cluster, rng: random.Random) -> None:
    see_jobs_through(judged, rng, restart_broker)


def see_jobs_through(cluster: Cluster, rng: random.Random, how: Breaker) -> None:
    before = submit(cluster, MENU[0])
    how(cluster, rng)
    after = submit(cluster, MENU[2])
    for job_id in (before, after):
        row = cluster.wait(job_id, "succeeded")
        assert cluster.tries(job_id) == 1
        assert row["started_at"] - row["created_at"] < 10 * BUSY, "the reconciler hints again"


@on_postgresql
@pytest.mark.parametrize("how", ["stop", "immediate"])
def test_a_database_that_restarts_loses_nothing_that_was_acknowledged(
    judged: Cluster, rng: random.Random, how: str
) -> None:
    database = judged.backend.database
    assert database is not None
    with at_work(judged, rng):
        for _ in TWICE:
            time.sleep(rng.uniform(0.5, 1.5))
            began = time.time()
            database.restart(how)
            judged.history.broke("restart database", "server", since=began)
        time.sleep(0.5)


@on_both_databases
def test_a_database_that_another_writer_holds_is_waited_for(judged: Cluster, rng: random.Random) -> None:
    with at_work(judged, rng):
        for _ in TWICE:
            time.sleep(rng.uniform(0.3, 1.0))
            with hold_database(judged):
                time.sleep(rng.uniform(0.5, 1.5))


@on_postgresql
def test_a_lost_answer_to_a_submits_commit_makes_one_job(judged: Cluster) -> None:
    proxy = judged.proxies["gateway"]
    for i in TWICE:
        lost, key = proxy.lost, f"lost-{judged.backend.name}-{i}"
        proxy.lose_answer(key.encode())
        job_id = submit(judged, MENU[0], key=key)
        assert proxy.lost == lost + 1, "the answer was lost"
        judged.history.broke("lose answers", "gateway")
        judged.wait(job_id, "succeeded")


@on_postgresql
def test_a_lost_answer_to_a_results_commit_makes_one_result(judged: Cluster) -> None:
    for _ in TWICE:
        before = sum(proxy.lost for proxy in judged.proxies.values())
        for worker in judged.workers:
            judged.proxies[worker.name].lose_answer(b"image/x-portable-graymap")
        job_id = submit(judged, MENU[0])
        judged.wait(job_id, "succeeded")
        for proxy in judged.proxies.values():
            proxy.forget()
        assert sum(proxy.lost for proxy in judged.proxies.values()) == before + 1
        judged.history.broke("lose answers", "worker")
        assert judged.tries(job_id) == 1, "it was found to be committed"


def test_the_same_message_a_hundred_times_and_in_any_order_is_one_claim(judged: Cluster, rng: random.Random) -> None:
    broker = judged.backend.broker
    app = make_app(Settings(home=judged.home, broker_url=broker.url if broker else None))
    hints = HintSender(app, JobStore(judged.database_url))
    for _ in TWICE:
        pools = ["dots"] * 100 + ["image"] * 20
        rng.shuffle(pools)
        early = [hints.send(pool) for pool in pools[:30]]  # before there is a job that they could be about
        jobs = [submit(judged, MENU[0]), submit(judged, MENU[2])]
        late = [hints.send(pool) for pool in pools[30:]]
        assert all(early + late), "the broker took them"
        for job_id in jobs:
            row = judged.wait(job_id, "succeeded")
            assert (judged.tries(job_id), row["epoch"]) == (1, row["attempts"])
    app.close()


def steps_of(cluster: Cluster, seed: int) -> list[tuple[float, int, int]]:
    """When, by which process, which row: every step that was computed of jobs with this seed."""
    lines = [line.split() for line in cluster.trace.read_text().splitlines()]
    return [(float(at), int(pid), int(row)) for at, pid, made_of, row in lines if int(made_of) == seed]


@pytest.fixture(scope="module")
def forgetful(backend: Backend, guard: Guard, plugin: Path) -> Iterator[Cluster]:
    """A cluster whose engines save nothing, so that only their supervisors can notice that the database is away."""
    environment = {"PERRIN_SAVE_SECONDS": "600"}
    with Cluster(guard, backend, plugin, workers=2, environment=environment) as cluster:
        yield cluster
        cluster.settle()
        verdict = judge(cluster.history)
        assert verdict.ok, str(verdict)


@on_postgresql
def test_a_worker_that_cannot_reach_the_database_stops_before_its_lease_ends(forgetful: Cluster) -> None:
    for seed, moment in ((201, "any moment"), (202, "in the middle of a transaction")):
        parameters = {"seed": seed, "steps": 100, "delay": 0.06}
        found = meet(forgetful, parameters, lambda found: found.stage == "step" and found.done > 3)
        job_id, worker = found.job, forgetful.worker_of(found)
        assert worker is not None
        proxy = forgetful.proxies[worker.name]
        pids = {engine.pid for engine in engines_of(worker.pid)}
        if moment != "any moment":
            proxy.deaf_after(job_id.encode())  # the job's row is locked, and its holder silent
            wait_for(lambda: proxy.is_deaf, "no transaction about the job")  # noqa: B023
        with silence(forgetful, worker.name):
            time.sleep(0.1)
            row = forgetful.observer.job(job_id)
            left = row["lease_until"] - time.time()  # a busy machine's units are slow, and its leases longer
            over = time.monotonic() + left
            later = forgetful.holding(job_id, lambda held: held.epoch > row["epoch"])  # noqa: B023
            assert later is not None, "its holder could not be heard, and ended it"
            assert later.owner != found.owner
            took = time.monotonic() - over
            time.sleep(0.5)
        late = [at - over for at, pid, _ in steps_of(forgetful, seed) if pid in pids and at > over + GRACE]
        assert late == [], "it went on computing after its lease was over"
        bound = BUSY * (RECONCILER_SECONDS + CLAIM_SECONDS + SLACK_SECONDS)
        assert took < bound, "its lock kept the job from the others"
        forgetful.wait(job_id, "succeeded")
        forgetful.ready()


@on_both_databases
def test_workers_stop_when_the_database_is_held_for_longer_than_their_leases(forgetful: Cluster) -> None:
    parameters = {"seed": 211, "steps": 100, "delay": 0.06}
    job_id = meet(forgetful, parameters, lambda found: found.stage == "step" and found.done > 3).job
    with hold_database(forgetful):
        row = forgetful.observer.job(job_id)
        over = time.monotonic() + row["lease_until"] - time.time()
        time.sleep(max(0.0, row["lease_until"] - time.time()) + GRACE + 1.0)
        held = time.monotonic()
    late = [at - over for at, _, _ in steps_of(forgetful, 211) if over + GRACE < at < held]
    assert late == [], "it went on computing after its lease was over"
    ended = forgetful.wait(job_id, "succeeded")
    told = [event["message"] for event in forgetful.observer.events(job_id) if event["message"]]
    assert ended["crashes"] == 0, f"nobody is to blame: {told}"


@on_both_databases
def test_reconcilers_at_the_same_moment_make_no_difference(judged: Cluster) -> None:
    found = meet(judged, MENU[1] | {"steps": 60}, lambda found: found.stage == "step")
    job_id, worker = found.job, judged.worker_of(found)
    assert worker is not None
    held = judged.held_by(worker)
    worker.send(9)
    judged.history.broke("kill supervisor", worker.name, held)
    over, taken = threading.Event(), []

    def reconcile() -> None:
        store = JobStore(judged.database_url)
        while not over.is_set():
            taken.extend(job.id for job in store.expire_leases())
            store.promote()
            time.sleep(0.01)
        store.close()

    threads = [threading.Thread(target=reconcile) for _ in range(4)]
    for thread in threads:
        thread.start()
    judged.wait(job_id, "succeeded")
    over.set()
    for thread in threads:
        thread.join()
    back = [event for event in judged.observer.events(job_id) if event["message"] == "its lease ran out"]
    assert len(back) == 1
    assert taken.count(job_id) <= 1, "four of them, and those of two workers: one took it back"
