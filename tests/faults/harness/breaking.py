"""The ways to break a cluster. Each strikes, mends what it must, and writes down what it did and whom it hit."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import sqlalchemy as sa
from servers import RabbitMQ, Redis

from harness.cluster import LEASE_SECONDS, Cluster
from harness.history import Fault
from harness.observer import Holding
from harness.processes import Keeper, engines_of

__all__ = [
    "delete_broker",
    "flush_broker",
    "frozen",
    "hold_database",
    "kill_engine",
    "kill_gateway",
    "kill_worker",
    "restart_broker",
    "send_signal",
    "server_faults",
    "silence",
    "victim",
]


def send_signal(processes: list[psutil.Process], number: int) -> None:
    """To each that is still there."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


# --- processes --------------------------------------------------------------------------------------------------------


def kill_engine(cluster: Cluster, worker: Keeper, kind: str = "kill engine") -> Fault | None:
    """SIGKILL to a worker's engine; None if it has none just now."""
    engines = engines_of(worker.pid)
    if not engines:
        return None
    held = cluster.held_by(worker)
    send_signal(engines, signal.SIGKILL)
    return cluster.history.broke(kind, worker.name, held, since=None)


def kill_worker(cluster: Cluster, worker: Keeper, kind: str = "kill supervisor") -> Fault:
    """SIGKILL to a supervisor; its engine dies with it."""
    held = cluster.held_by(worker)
    worker.send(signal.SIGKILL)
    return cluster.history.broke(kind, worker.name, held)


def kill_gateway(cluster: Cluster) -> Fault:
    """SIGKILL to the gateway."""
    cluster.gateway.send(signal.SIGKILL)
    return cluster.history.broke("kill gateway", "gateway")


@contextmanager
def frozen(cluster: Cluster, worker: Keeper, whom: str) -> Iterator[None]:
    """SIGSTOP to a worker's ``engine``, ``supervisor`` or ``both``, and SIGCONT at the end."""
    began, held = time.time(), cluster.held_by(worker)
    processes = engines_of(worker.pid) if whom != "supervisor" else []
    if whom != "engine":
        with suppress(psutil.Error):
            processes.append(psutil.Process(worker.pid))
    send_signal(processes, signal.SIGSTOP)
    try:
        yield
    finally:
        send_signal(processes, signal.SIGCONT)
        cluster.history.broke(f"stop {whom}", worker.name, held, since=began)


# --- the way to the database ------------------------------------------------------------------------------------------


@contextmanager
def silence(cluster: Cluster, name: str) -> Iterator[None]:
    """One process is cut off from PostgreSQL: its connections stay, and nothing comes through."""
    worker = next((worker for worker in cluster.workers if worker.name == name), None)
    began, held = time.time(), cluster.held_by(worker) if worker is not None else ()
    cluster.proxies[name].deaf()
    try:
        yield
    finally:
        cluster.proxies[name].hear()
        cluster.history.broke("cut off", name, held, since=began)


@contextmanager
def hold_database(cluster: Cluster) -> Iterator[None]:
    """Another writer has the lock of SQLite, or of the table of jobs in PostgreSQL: nobody can write."""
    url = cluster.database_url
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", connect_args=_plain(url))
    began = time.time()
    with engine.connect() as connection:
        for statement in _lock(url):
            connection.exec_driver_sql(statement)
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")
            cluster.history.broke("hold database", "everybody", since=began)
    engine.dispose()


def _plain(url: str) -> Mapping[str, Any]:
    return {"timeout": 60} if url.startswith("sqlite") else {}


def _lock(url: str) -> tuple[str, ...]:
    return ("BEGIN IMMEDIATE",) if url.startswith("sqlite") else ("BEGIN", "LOCK TABLE jobs IN EXCLUSIVE MODE")


# --- servers ----------------------------------------------------------------------------------------------------------


def _during(cluster: Cluster, kind: str, work: Callable[[], object]) -> Fault:
    began = time.time()
    work()
    return cluster.history.broke(kind, "server", (), since=began)


def flush_broker(cluster: Cluster, _rng: random.Random) -> Fault:
    """Every hint that waits is gone."""
    broker = cluster.backend.broker
    if isinstance(broker, Redis):
        return _during(cluster, "flush broker", broker.flush)
    if isinstance(broker, RabbitMQ):
        return _during(cluster, "flush broker", lambda: broker.flush("perrin.dots"))
    folder = cluster.home / "broker" / "queue"
    return _during(cluster, "flush broker", lambda: [path.unlink(missing_ok=True) for path in folder.glob("*")])


def restart_broker(cluster: Cluster, rng: random.Random) -> Fault:
    """The broker goes and comes, in good order or not."""
    broker = cluster.backend.broker
    assert broker is not None
    how = rng.choice(["stop", "kill"])
    return _during(cluster, "restart broker", lambda: broker.restart(how))


def delete_broker(cluster: Cluster, _rng: random.Random) -> Fault:
    """The broker's folder is deleted."""
    broker = cluster.backend.broker
    if broker is not None:
        return _during(cluster, "delete broker", broker.wipe)
    return _during(cluster, "delete broker", lambda: shutil.rmtree(cluster.home / "broker", ignore_errors=True))


def restart_database(cluster: Cluster, rng: random.Random) -> Fault:
    """PostgreSQL goes and comes: fast, immediate or killed."""
    database = cluster.backend.database
    assert database is not None
    how = rng.choice(["stop", "immediate", "kill"])
    return _during(cluster, "restart database", lambda: database.restart(how))


def busy_database(cluster: Cluster, rng: random.Random) -> Fault | None:
    """Nobody can write for a while, which may be longer than a lease."""
    with hold_database(cluster):
        time.sleep(rng.uniform(0.3, 1.7) * LEASE_SECONDS)
    return cluster.history.faults[-1]


def lose_answers(cluster: Cluster, rng: random.Random) -> Fault:
    """The next commits of some process go through, and it never hears of it."""
    name = rng.choice([worker.name for worker in cluster.workers] + ["gateway"])
    proxy = cluster.proxies[name]
    wanted = proxy.lost + 3
    about = rng.choice([b"", b"UPDATE jobs", b"image/x-portable-graymap", b"INSERT INTO"])
    for _ in range(3):
        proxy.lose_answer(about)
    began, end = time.time(), time.monotonic() + 3
    while proxy.lost < wanted and time.monotonic() < end:
        time.sleep(0.05)
    proxy.forget()
    return cluster.history.broke("lose answers", name, (), since=began)


def cut_off(cluster: Cluster, rng: random.Random) -> Fault:
    """One worker cannot reach the database, for longer than its leases last."""
    with silence(cluster, rng.choice(cluster.workers).name):
        time.sleep(LEASE_SECONDS * rng.uniform(1.2, 2.5))
    return cluster.history.faults[-1]


def stop_process(cluster: Cluster, rng: random.Random) -> Fault:
    """Engine, supervisor or both stand still past their leases, and wake up."""
    whom = rng.choice(["engine", "supervisor", "both"])
    with frozen(cluster, rng.choice(cluster.workers), whom):
        time.sleep(LEASE_SECONDS * rng.uniform(1.2, 2.0))
    return cluster.history.faults[-1]


SERVER_FAULTS: Mapping[str, tuple[Callable[[Cluster, random.Random], Fault | None], tuple[str, ...]]] = {
    "flush broker": (flush_broker, ("sqlite", "redis", "rabbitmq")),
    "restart broker": (restart_broker, ("redis", "rabbitmq")),
    "delete broker": (delete_broker, ("sqlite", "redis", "rabbitmq")),
    "restart database": (restart_database, ("redis", "rabbitmq")),
    "hold database": (busy_database, ("sqlite", "redis", "rabbitmq")),
    "lose answers": (lose_answers, ("redis", "rabbitmq")),
    "cut off": (cut_off, ("redis", "rabbitmq")),
    "stop process": (stop_process, ("sqlite", "redis", "rabbitmq")),
}
"""By name: how, and on which backends there is such a thing. A file has no answers to lose, cannot be restarted, and
whoever can be cut off from it has lost the machine's disk."""


def server_faults(backend: str) -> dict[str, Callable[[Cluster, random.Random], Fault | None]]:
    """Those that exist on a backend."""
    return {name: how for name, (how, where) in SERVER_FAULTS.items() if backend in where}


def victim(
    cluster: Cluster, rng: random.Random, where: Callable[[Holding], bool], hits: int = 99
) -> tuple[Keeper, Holding] | None:
    """Somebody who holds a job of which ``where`` is true, and none that was hit ``hits`` times; or None."""
    holdings = cluster.observer.holdings()
    spared = {found.worker for found in holdings if cluster.history.hits[found.job] >= hits}
    found = [holding for holding in holdings if where(holding) and holding.worker not in spared]
    rng.shuffle(found)
    for holding in found:
        worker = cluster.worker_of(holding)
        if worker is not None:
            return worker, holding
    return None
