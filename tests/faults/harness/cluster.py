"""A platform of real processes on one machine: a gateway, workers, and the servers that a backend needs.

::

    sqlite      SQLite      filesystem://      what `perrin up` runs
    redis       PostgreSQL  Redis
    rabbitmq    PostgreSQL  RabbitMQ

With PostgreSQL every process has a proxy of its own in front of it, so that each can be cut off alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import sqlalchemy as sa
from guard import Guard
from servers import PostgreSQL, RabbitMQ, Redis, Server

from harness.history import End, Held, History
from harness.observer import Holding, Observer
from harness.processes import PATIENCE, Keeper, wait_for
from harness.proxy import Proxy
from perrin.settings import Settings
from perrin_orchestration.prepare import local_key, prepare_store
from perrin_orchestration.sockets import bind

__all__ = ["BACKENDS", "LEASE_SECONDS", "Backend", "Cluster"]

BACKENDS = ("sqlite", "redis", "rabbitmq")
LEASE_SECONDS = 3.0


class Backend:
    """The servers behind a cluster, up and running; several clusters may stand on one, each with its own database."""

    def __init__(self, name: str, guard: Guard) -> None:
        self.name = name
        self.database: PostgreSQL | None = None
        self.broker: Redis | RabbitMQ | None = None
        if name != "sqlite":
            kind = {"redis": Redis, "rabbitmq": RabbitMQ}[name]
            PostgreSQL.needed()
            kind.needed()
            self.database, self.broker = PostgreSQL(guard), kind(guard)
            servers: tuple[Server, ...] = (self.database, self.broker)
            for server in servers:
                server.start()

    def stop(self) -> None:
        """Stop the servers."""
        for server in (self.database, self.broker):
            if server is not None:
                server.stop("kill")

    def new_database(self) -> str:
        """Name of a fresh database on the server."""
        assert self.database is not None
        name = f"t{uuid.uuid4().hex}"
        admin = sa.create_engine(f"{self.database.url}/postgres", isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        admin.dispose()
        return name


class Cluster:
    """One platform.

    Args:
        guard: ends everything with the test.
        backend: where jobs and hints are.
        plugin: folder of the outside plugin.
        workers: how many.
        history: where everything is written down.
        environment: more variables for the workers.
        preload: more variables for the first worker alone.
    """

    def __init__(
        self,
        guard: Guard,
        backend: Backend,
        plugin: Path,
        *,
        workers: int = 3,
        history: History | None = None,
        environment: Mapping[str, str] | None = None,
        preload: Mapping[str, str] | None = None,
    ) -> None:
        self.backend, self.guard = backend, guard
        self.history = history or History()
        self.home = guard.folder / f"home-{uuid.uuid4().hex[:8]}"
        self.home.mkdir()
        self.trace = self.home / "trace"
        self.proxies: dict[str, Proxy] = {}
        self._database = backend.new_database() if backend.database else ""
        self._base = self._environment(plugin) | dict(environment or {})
        settings = Settings(home=self.home, database_url=self._url())
        prepare_store(settings)
        self.key = local_key(settings)
        self.database_url = self._url() or f"sqlite:///{self.home / 'perrin.db'}"
        self.observer = Observer(self.database_url)
        self._listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        descriptor = self._listener.fileno()
        self.gateway = self._keep("gateway", ["gateway", "--fd", str(descriptor)], {}, (descriptor,))
        self.workers = [
            self._keep(f"worker-{i}", ["worker"], dict(preload or {}) if i == 0 else {}) for i in range(workers)
        ]
        headers = {"Authorization": f"Bearer {self.key}"}
        self.http = httpx.Client(base_url=self.url + "/v1", headers=headers, trust_env=False, timeout=60)

    def _environment(self, plugin: Path) -> dict[str, str]:
        values = {name: value for name, value in os.environ.items() if not name.startswith("PERRIN_")}
        values["PYTHONPATH"] = os.pathsep.join(filter(None, [str(plugin), os.environ.get("PYTHONPATH")]))
        values |= {
            "OMP_NUM_THREADS": "1",
            "PERRIN_HOME": str(self.home),
            "PERRIN_DEVICE": "cpu",
            "PERRIN_LEASE_SECONDS": str(LEASE_SECONDS),
            "PERRIN_SAVE_SECONDS": "0.2",
            "PERRIN_MIN_FREE_MB": "1",
            "PERRIN_ARTIFACTS_URL": str(self.home / "artifacts"),
            "PERRIN_DOTS_TRACE": str(self.trace),
        }
        if self.backend.broker is not None:
            values["PERRIN_BROKER_URL"] = self.backend.broker.url
        return values

    def _url(self, port: int | None = None) -> str | None:
        server = self.backend.database
        if server is None:
            return None
        return f"postgresql+psycopg://perrin@127.0.0.1:{port or server.port}/{self._database}"

    def _keep(
        self, name: str, arguments: Sequence[str], more: Mapping[str, str], descriptors: Sequence[int] = ()
    ) -> Keeper:
        environment = self._base | dict(more)
        if self.backend.database is not None:
            self.proxies[name] = Proxy(self.backend.database.port)
            environment["PERRIN_DATABASE_URL"] = self._url(self.proxies[name].port) or ""
        command = [sys.executable, "-m", "perrin_orchestration", *arguments]
        return Keeper(self.guard, name, command, environment, self.home, descriptors)

    # --- who is there -------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Wait until the gateway answers and every worker is idle."""
        began = time.monotonic()
        wait_for(lambda: self.get("/health"), "the gateway does not answer")
        wait_for(lambda: self.idle() == len(self.workers), "not every worker is up", pause=0.1)
        self.history.restart_seconds = max(self.history.restart_seconds, time.monotonic() - began)

    def idle(self) -> int:
        """How many of the workers that run now are idle, as they told the store."""
        mine = {worker.pid for worker in self.workers}
        told = self.get("/workers") or []
        pids = self.observer.workers()
        return sum(worker["state"] in ("idle", "busy") and pids.get(worker["id"]) in mine for worker in told)

    def worker_of(self, holding: Holding) -> Keeper | None:
        """The worker whose engine holds a job."""
        pid = self.observer.workers().get(holding.worker)
        return next((worker for worker in self.workers if worker.pid == pid), None)

    def held_by(self, worker: Keeper) -> tuple[Held, ...]:
        """What a worker's engines hold now."""
        pids = self.observer.workers()
        return tuple(found.held for found in self.observer.holdings() if pids.get(found.worker) == worker.pid)

    def holding(self, job_id: str, where: Callable[[Holding], bool] = lambda _: True) -> Holding | None:
        """Wait until somebody holds the job, and ``where`` is true of it; None if it was over before that was seen."""

        def look() -> Holding | str | None:
            held = next((found for found in self.observer.holdings() if found.job == job_id and where(found)), None)
            return held or ("over" if self.observer.job(job_id).get("finished_at") is not None else None)

        answer = wait_for(look, f"job {job_id} is not held as wished", pause=0.003)
        return answer if isinstance(answer, Holding) else None

    # --- what a user does ---------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """What the gateway answers, or nothing."""
        with contextlib.suppress(httpx.HTTPError):
            answer = self.http.get(path)
            if answer.status_code == 200:
                return answer.json()
        return None

    def wait(self, job_id: str, *states: str, seconds: float = PATIENCE) -> Mapping[str, Any]:
        """The job's row once it has ended, in one of these states."""

        def look() -> Mapping[str, Any] | None:
            row = self.observer.job(job_id)
            return row if row and row["finished_at"] is not None else None

        try:
            row = wait_for(look, "", seconds, 0.05)
        except AssertionError:
            raise AssertionError(
                f"{job_id} has not ended after {seconds} s: {dict(self.observer.job(job_id))}"
            ) from None
        assert isinstance(row, Mapping)
        assert not states or row["state"] in states, dict(row)
        return row

    def tries(self, job_id: str) -> int:
        """How often it was begun. A worker for which the store is too slow to keep a lease gives the job back, and
        nobody is to blame: on a busy machine that happens, and does not count.
        """
        released = sum("released by its worker" in event["message"] for event in self.observer.events(job_id))
        return int(self.observer.job(job_id)["attempts"]) - released

    # --- the end ------------------------------------------------------------------------------------------------------

    def settle(self, seconds: float = PATIENCE) -> None:
        """Wait until every job has ended, then note what is in the store and what a user gets of it."""
        wait_for(lambda: self.get("/health"), "the gateway does not answer")
        end = time.monotonic() + seconds
        while self.observer.live() and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.3)  # whatever might still be written after an end
        artifacts = self.observer.table("artifacts")
        given = {}
        for row in artifacts:
            answer = self.http.get(f"/artifacts/{row['id']}")
            given[row["id"]] = _sha256(answer.content) if answer.status_code == 200 else ""
        self.history.end = End(self.observer.table("jobs"), self.observer.table("events"), artifacts, given)

    def close(self) -> None:
        """End everything; what a good order of ending does is tested elsewhere."""
        for keeper in (*self.workers, self.gateway):
            keeper.close()
        self.http.close()
        self.observer.close()
        self._listener.close()
        for proxy in self.proxies.values():
            proxy.close()

    def __enter__(self) -> Self:
        self.ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
