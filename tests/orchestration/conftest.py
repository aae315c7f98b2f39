"""What the tests stand on: an outside plugin that is really installed, stores on both databases, whole platforms."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog
from guard import Guard
from outside import install
from platforms import running
from s3 import S3Server
from servers import PostgreSQL

from perrin import plugins
from perrin.client import Client
from perrin_orchestration.store import JobStore, NewJob, User, schema
from perrin_orchestration.store.database import Database


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outside plugin, installed by pip into a folder of its own."""
    return install(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def dots(plugin_folder: Path) -> Iterator[Path]:
    """The outside plugin, to be found by this process and by those that it starts."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(plugin_folder), before]))
    sys.path.insert(0, str(plugin_folder))
    importlib.invalidate_caches()
    plugins._entries.cache_clear()
    yield plugin_folder
    sys.path.remove(str(plugin_folder))
    plugins._entries.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "perrin_dots"]:
        del sys.modules[name]
    os.environ["PYTHONPATH"] = before or ""
    if before is None:
        del os.environ["PYTHONPATH"]


# --- databases --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "perrin.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL, without a database, of a private PostgreSQL server."""
    PostgreSQL.needed()
    with Guard() as guard:
        server = PostgreSQL(guard)
        server.start()
        make_template(server.url)
        yield server.url


def make_template(base: str) -> None:
    """A migrated database, to be copied."""
    admin = sa.create_engine(f"{base}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE template")
    admin.dispose()
    migrated = Database(f"{base}/template")
    schema.upgrade(migrated)
    migrated.close()


@contextmanager
def postgres_database(base: str, template: str = "template") -> Iterator[str]:
    """A database of its own, dropped afterwards."""
    name = f"t{uuid.uuid4().hex}"
    admin = sa.create_engine(f"{base}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield f"{base}/{name}"
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated store of its own, once on each database."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "perrin.db")
        yield f"sqlite:///{tmp_path / 'perrin.db'}"
    else:
        with postgres_database(request.getfixturevalue("postgres")) as url:
            yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that was never migrated."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'perrin.db'}"
    else:
        with postgres_database(request.getfixturevalue("postgres"), "template0") as url:
            yield url


@pytest.fixture
def postgres_empty(postgres: str) -> Iterator[str]:
    """A PostgreSQL database that was never migrated."""
    with postgres_database(postgres, "template0") as url:
        yield url


@pytest.fixture(scope="module")
def postgres_migrated(postgres: str) -> Iterator[str]:
    """A migrated PostgreSQL database for the tests of one module."""
    with postgres_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a whole platform on the CPU, which the command line finds too."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, running(home, lease_seconds=10.0) as platform:
        platform.announce(patch)
        with Client() as made:
            yield made


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A private S3 server with an empty bucket."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_clock() -> type[Clock]:
    """Clocks that all begin at the same time."""
    return Clock


@pytest.fixture
def store(store_url: str, clock: Clock) -> Iterator[JobStore]:
    made = JobStore(store_url, clock=clock)
    yield made
    made.close()


@pytest.fixture
def ann(store: JobStore) -> User:
    return store.people.add("ann")


NewJobs = Callable[..., NewJob]


@pytest.fixture
def new(ann: User) -> NewJobs:
    """A job of ann's to be submitted; anything about it can be said."""

    def make(**values: object) -> NewJob:
        base: dict[str, object] = {"user_id": ann.id, "modality": "dots", "model": "dots-1", "format": "pgm"}
        base |= {"parameters": {"radius": 3, "prompt": "a dot"}, "pool": "dots"}
        return NewJob(**(base | values))  # type: ignore[arg-type]

    return make
