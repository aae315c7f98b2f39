"""Every statement finds its rows by the index that it names, on both databases, and scans no table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from perrin_orchestration.store import queries
from perrin_orchestration.store.database import Database, rows
from perrin_orchestration.store.models import Base
from perrin_orchestration.store.queries import Query

MODULES = (
    queries.submitting,
    queries.leases,
    queries.ending,
    queries.reading,
    queries.people,
    queries.pools,
    queries.keeping,
)
ALL = {f"{m.__name__.rpartition('.')[2]}.{name}": getattr(m, name) for m in MODULES for name in m.__all__}
NAMES = re.compile(r"(?<![:\w]):([a-z_0-9]+)")
LISTS = {"ids", "names", "pools", "owners", "numbers", "job_ids", "hashes"}
NUMBERS = re.compile(
    r"now|until|limit|number|rank|most|seconds|at|used|share|epoch|latest|.*before|after|item|edges|joules|last|done|total|job|crashes|run_after|finished_at"
)

KNOWN = {
    "limit": 50,
    "state": None,
    "modality": None,
    "pattern": None,
    "user_id": "u1",
    "group_id": "g1",
    "owner": "o1",
    "pool": "p1",
    "resume": True,
}


def values(query: str) -> dict[str, object]:
    """Something to bind, of the right kind; two things for a list, because one is a simpler question."""
    bound: dict[str, object] = {}
    for name in NAMES.findall(query):
        if name in LISTS:
            bound[name] = (1, 2) if name == "numbers" else ("a", "b")
        elif name == "before" and "AS TEXT" in query:
            bound[name] = "a"
        elif name in KNOWN:
            bound[name] = KNOWN[name]
        else:
            bound[name] = 1 if NUMBERS.fullmatch(name) else "a"
    return bound


def scanned(query: Query) -> bool:
    """An INSERT of values reads nothing by itself."""
    return not query.lstrip().startswith("INSERT INTO") or "SELECT" in query


READING = {name: query for name, query in ALL.items() if scanned(query)}


@pytest.fixture(scope="module")
def sqlite(sqlite_template: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{sqlite_template}")
    yield database
    database.close()


FILLED = """
INSERT INTO users (id, name, created_at) SELECT 'u' || i, 'u' || i, i FROM generate_series(1, 400) AS i;
INSERT INTO pools (name, state, reason, changed_at) SELECT 'p' || i, 'open', '', 0 FROM generate_series(1, 4) AS i;
INSERT INTO groups (id, user_id, label, request_sha256, created_at)
    SELECT 'g' || i, 'u' || i % 400 + 1, '', '', i FROM generate_series(1, 40000) AS i;
INSERT INTO jobs (
    id, user_id, modality, model, parameters, format, label, search, request_sha256, group_id, retry_of, pool, priority,
    run_after, deadline, rank, state, owner, lease_until, created_at, finished_at, idempotency_key)
    SELECT 'j' || i, 'u' || i % 400 + 1, 'm', 'm', '{}', 'f', '', '', '',
        CASE WHEN i % 4 = 0 THEN 'g' || i % 500 + 1 END,
        CASE WHEN i % 50 = 7 THEN 'j' || i - 1 END, 'p' || i % 4 + 1, 0, i, CASE WHEN i % 3 = 0 THEN i END, i,
        CASE WHEN i > 19900 THEN 'running' WHEN i > 19000 THEN 'waiting' WHEN i > 17000 THEN 'queued'
            WHEN i % 100 = 1 THEN 'failed' ELSE 'succeeded' END,
        CASE WHEN i > 19900 THEN 'o' || i % 9 END, CASE WHEN i > 19900 THEN i END, i,
        CASE WHEN i <= 17000 THEN i END, CASE WHEN i % 2 = 0 THEN 'k' || i END
    FROM generate_series(1, 20000) AS i;
INSERT INTO edges (child_id, number, parent_id, item)
    SELECT 'j' || i, 0, 'j' || i - 1, 0 FROM generate_series(2, 9999) AS i;
INSERT INTO events (job_id, number, at, kind, state, done, total, message)
    SELECT 'j' || i, n, 0, 'state', 'queued', 0, 0, '' FROM generate_series(1, 5000) AS i, generate_series(1, 4) AS n;
INSERT INTO costs (job_id, epoch, gpu_seconds) SELECT 'j' || i, 1, 0 FROM generate_series(1, 9999) AS i;
INSERT INTO artifacts (id, job_id, number, name, media_type, size, sha256, items, details, created_at)
    SELECT 'a' || i, 'j' || i, 0, 'n', 'm', 1, 'h' || i, '[]', '{}', 0 FROM generate_series(1, 9999) AS i;
INSERT INTO uploads (id, user_id, media_type, size, sha256, used, created_at)
    SELECT 'u' || i, 'u' || i % 400 + 1, 'm', 1, 'h' || i, i % 3 > 0, i FROM generate_series(1, 9000) AS i;
INSERT INTO inputs (job_id, path, file_id)
    SELECT 'j' || i, 'start', CASE WHEN i % 2 = 0 THEN 'u' || i ELSE 'a' || i END FROM generate_series(1, 9000) AS i;
INSERT INTO api_keys (id, user_id, label, sha256, created_at)
    SELECT 'k' || i, 'u' || i % 400 + 1, '', 'h' || i, 0 FROM generate_series(1, 2000) AS i;
INSERT INTO workers (id, host, pid, device, pool, state, models, started_at, seen_at, finished_jobs)
    SELECT 'w' || i, 'h', i, 'cpu', 'p1', 'lost', '[]', i, i, 0 FROM generate_series(1, 2000) AS i;
ANALYZE;
"""


@pytest.fixture(scope="module")
def postgresql(postgres_migrated: str) -> Iterator[Database]:
    """With rows in it: of empty tables every plan is as good as any other."""
    database = Database(postgres_migrated)
    with database.engine.begin() as connection:
        for statement in FILLED.split(";")[:-1]:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    yield database
    database.close()


def test_every_statement_is_listed() -> None:
    for module in MODULES:
        assert {name for name in vars(module) if isinstance(getattr(module, name), Query)} == set(module.__all__)


def sqlite_name(database: Database, index: str) -> set[str]:
    """SQLite names the index of a unique or primary key itself; and an integer primary key is the row's own number."""
    table = next(
        table
        for table in Base.metadata.sorted_tables
        for named in (*table.constraints, *table.indexes)
        if str(named.name) == index or index == f"{table.name}_pkey"
    )
    if index == "jobs_pkey":
        return {"INTEGER PRIMARY KEY"}
    columns = next(
        [column.name for column in named.columns]
        for named in (*table.constraints, *table.indexes)
        if str(named.name) == index or (index == f"{table.name}_pkey" and named is table.primary_key)
    )
    found = {index}
    for row in database.read(lambda c: rows(c, f"PRAGMA index_list('{table.name}')")):
        parts = database.read(lambda c, n=row["name"]: rows(c, f"PRAGMA index_info('{n}')"))
        if [part["name"] for part in parts] == columns and row["origin"] != "c":
            found.add(row["name"])
    return found


@pytest.mark.parametrize("name", [name for name in READING if not name.endswith("_POSTGRESQL")])
def test_sqlite_uses_the_index(sqlite: Database, name: str) -> None:
    query = READING[name]
    assert query.indexes, f"{name} names no index"
    plan = sqlite.read(lambda c: rows(c, "EXPLAIN QUERY PLAN " + query, values(query)))
    steps = [row["detail"] for row in plan]
    for index in query.indexes:
        accepted = {found for one in index.split("|") for found in sqlite_name(sqlite, one)}
        assert any(found in step for found in accepted for step in steps), (index, "\n".join(steps))
    scans = [step for step in steps if step.startswith("SCAN") and "INDEX" not in step]
    assert all(step.startswith(("SCAN line", "SCAN CONSTANT", "SCAN ahead", "SCAN pools")) for step in scans), scans


@pytest.mark.parametrize("name", [name for name in READING if not name.endswith("_SQLITE")])
def test_postgresql_uses_the_index(postgresql: Database, name: str) -> None:
    """Some tables are so small that a scan is cheapest: it is forbidden, and what is left must be the index."""
    query = READING[name]

    def explain(connection: Connection) -> list[str]:
        for setting in ("seqscan", "bitmapscan"):
            connection.exec_driver_sql(f"SET LOCAL enable_{setting} = off")
        return [row["QUERY PLAN"] for row in rows(connection, "EXPLAIN " + query, values(query))]

    steps = postgresql.read(explain)
    for index in query.indexes:
        assert any(f" {one} " in step + " " for one in index.split("|") for step in steps), (index, "\n".join(steps))
    assert not [step for step in steps if "Seq Scan" in step], steps


def test_the_claims_heads_come_in_the_order_of_the_index(sqlite: Database) -> None:
    heads = queries.leases.HEADS_SQLITE
    plan = sqlite.read(lambda c: rows(c, "EXPLAIN QUERY PLAN " + heads, values(heads)))
    assert not [row["detail"] for row in plan if "ORDER BY" in row["detail"]]
