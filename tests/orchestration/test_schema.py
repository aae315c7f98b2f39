"""Revisions: what the migrations make is what the models say, and a store of another age is refused in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from perrin.errors import Conflict, InvalidInput, NotFound, SchemaMismatch
from perrin.settings import Settings
from perrin.wire import JobState
from perrin_orchestration.prepare import local_key, prepare_store
from perrin_orchestration.store import Job, JobStore, NewJob, StaleLease, Worker, schema
from perrin_orchestration.store.database import Database
from perrin_orchestration.store.models import Base


def stamp(url: str, revision: str) -> None:
    database = Database(url)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    database.close()


def test_migrations_make_what_the_models_say_and_unmake_it(empty_url: str) -> None:
    database = Database(empty_url)
    schema.upgrade(database)
    with database.connection() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)
    assert differences == []
    assert schema.check(database) == schema.newest()
    schema.downgrade(database)
    with database.connection() as connection:
        left = connection.dialect.get_table_names(connection, schema=None)  # type: ignore[no-untyped-call]
    assert left == ["alembic_version"]
    database.close()


def test_an_empty_store_is_refused_with_the_command_to_run(empty_url: str) -> None:
    database = Database(empty_url)
    with pytest.raises(SchemaMismatch, match=r"is empty .* needs revision 0004: run `perrin db upgrade`"):
        schema.check(database)
    database.close()


def test_an_older_store_names_both_revisions_and_the_command(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "known", lambda: ("0005", "0004"))
    database = Database(store_url)
    with pytest.raises(SchemaMismatch, match=r"at revision 0004, older than 0005.*run `perrin db upgrade`"):
        schema.check(database)
    database.close()


def test_a_newer_store_names_both_revisions_and_is_left_alone(store_url: str) -> None:
    stamp(store_url, "9999")
    database = Database(store_url)
    for attempt in (schema.check, schema.upgrade):
        with pytest.raises(SchemaMismatch, match=r"at revision 9999, newer than 0004.*upgrade perrin") as newer:
            attempt(database)
        assert "\n" not in newer.value.message
    assert schema.revision(database) == "9999"
    database.close()


def test_a_store_is_backed_up_before_it_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path)
    assert prepare_store(settings) is None
    store = JobStore(settings.store_url)
    user = store.people.add("ann")
    job = store.submit(NewJob(user.id, "dots", "dots-1", {}, "pgm", "dots"))[0]
    assert prepare_store(settings) is None
    monkeypatch.setattr(schema, "known", lambda: ("0005", "0004"))
    monkeypatch.setattr(schema, "upgrade", lambda _database: "0004")
    copy = prepare_store(settings)
    assert copy is not None
    assert copy.parent == tmp_path / "backups"
    assert JobStore(f"sqlite:///{copy}").get(job.id) == job


def test_a_postgresql_store_is_migrated_only_once_the_person_has_backed_it_up(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store_url.startswith("sqlite"):
        pytest.skip("SQLite is backed up by Perrin itself")
    settings = Settings(home=tmp_path, database_url=store_url)
    monkeypatch.setattr(schema, "known", lambda: ("0005", "0004"))
    monkeypatch.setattr(schema, "upgrade", lambda _database: "0004")
    with pytest.raises(SchemaMismatch, match="pg_dump"):
        prepare_store(settings)
    assert prepare_store(settings, backed_up=True) is None
    database = Database(store_url)
    with pytest.raises(InvalidInput, match="pg_dump"):
        schema.backup(database, tmp_path / "x.db")
    database.close()


def test_a_backup_is_restored_whole_or_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    database = Database(settings.store_url)
    with pytest.raises(NotFound):
        schema.backup(database, tmp_path / "b.db")
    prepare_store(settings)
    store = JobStore(settings.store_url)
    user = store.people.add("ann")
    new = NewJob(user.id, "dots", "dots-1", {}, "pgm", "dots")
    first = store.submit(new)[0]
    schema.backup(database, tmp_path / "b.db")
    with pytest.raises(Conflict, match="exists"):
        schema.backup(database, tmp_path / "b.db")
    store.submit(new)
    store.close()
    (tmp_path / "junk.db").write_bytes(b"no database at all" * 100)
    for wrong in ("junk.db", "missing.db"):
        with pytest.raises(InvalidInput, match="a backup that `perrin db backup` made"):
            schema.restore(database, tmp_path / wrong)
    schema.restore(database, tmp_path / "b.db")
    assert [job.id for job in store.list(user.id)] == [first.id]
    store.close()
    database.close()


def held(store: JobStore, user_id: str, **values: Any) -> Job:
    store.submit(NewJob(user_id, "dots", "dots-1", {}, "pgm", "dots", **values))
    (job,) = store.claim("o", "w", ["dots"], 1, 30.0)
    store.start(job.lease)
    store.save(job.lease, "c" * 64)
    return job


def all_are_let_go(store: JobStore, jobs: Sequence[Job]) -> None:
    """Queued, no crash counted, to go on from what was saved; the stale lease touches nothing."""
    for job in jobs:
        now = store.get(job.id)
        assert (now.state, now.crashes, now.owner, now.saved_sha256) == (JobState.QUEUED, 0, None, "c" * 64)
        assert store.events(job.id)[-1].message == "restored from a backup"
        with pytest.raises(StaleLease):
            store.committing(job.lease)
    assert {job.id for job in store.claim("p", "w", ["dots"], 9, 30.0)} == {job.id for job in jobs}


def test_what_was_held_when_a_backup_was_made_is_queued_again_without_a_crash(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    prepare_store(settings)
    store = JobStore(settings.store_url)
    user = store.people.add("ann")
    jobs, stopped = [held(store, user.id) for _ in range(3)], held(store, user.id)
    store.cancel(stopped.id, user.id)
    schema.backup(store.database, tmp_path / "b.db")
    kept = (tmp_path / "b.db").read_bytes()
    for job in jobs:
        store.fail(job.lease, "invalid", "after the backup")
    assert schema.restore(store.database, tmp_path / "b.db") == 4
    all_are_let_go(store, jobs)
    assert store.get(stopped.id).state is JobState.CANCELLED
    store.close()
    assert (tmp_path / "b.db").read_bytes() == kept
    assert sorted(path.name for path in (tmp_path / "home").glob("perrin.db*")) == ["perrin.db"]


def test_an_older_backup_is_brought_to_date_and_a_newer_one_refused(tmp_path: Path) -> None:
    old = Database(f"sqlite:///{tmp_path / 'old.db'}")
    schema.upgrade(old, "0001")
    with old.engine.begin() as connection:
        for statement in BEFORE.split(";"):
            connection.exec_driver_sql(statement)
    old.close()
    settings = Settings(home=tmp_path / "home")
    database = Database(settings.store_url)
    prepare_store(settings)
    assert schema.restore(database, tmp_path / "old.db") == 1
    assert schema.check(database) == schema.newest()
    store = JobStore(settings.store_url)
    assert (store.get("held").state, store.get("held").crashes) == (JobState.QUEUED, 0)
    store.close()
    stamp(f"sqlite:///{tmp_path / 'old.db'}", "9999")
    before = database.path.read_bytes()  # type: ignore[union-attr]
    with pytest.raises(SchemaMismatch, match="newer than"):
        schema.restore(database, tmp_path / "old.db")
    assert database.path.read_bytes() == before  # type: ignore[union-attr]
    assert sorted(path.name for path in (tmp_path / "home").glob("perrin.db*")) == ["perrin.db"]
    database.close()


def test_a_postgresql_store_goes_through_pg_dump_and_pg_restore(
    postgres_migrated: str, postgres_empty: str, tmp_path: Path
) -> None:
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:], Path(shutil.which("pg_dump") or "/").parent]

    def program(name: str, *arguments: str) -> None:
        path = next(folder / name for folder in folders if (folder / name).exists())
        subprocess.run([path, *arguments], check=True)

    def plain(url: str) -> str:
        return url.replace("+psycopg", "")

    def perrin(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "perrin", *arguments, "--home", str(tmp_path)]
        environment = os.environ | {"PERRIN_DATABASE_URL": postgres_empty}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    store = JobStore(postgres_migrated)
    user = store.people.add("ann")
    jobs = [held(store, user.id) for _ in range(3)]
    before = {job.id: store.events(job.id) for job in jobs}
    program("pg_dump", "--format=custom", f"--file={tmp_path / 'dump'}", plain(postgres_migrated))
    program("pg_restore", "--no-owner", f"--dbname={plain(postgres_empty)}", str(tmp_path / "dump"))
    store.close()
    restored = JobStore(postgres_empty)
    assert schema.check(restored.database) == schema.newest()
    assert {job.id: restored.events(job.id) for job in jobs} == before
    now = time.time()
    lately = now + 600  # however long the command takes to start
    worker = Worker("w", "h", 1, "cpu", "dots", "busy", (), now, lately)
    restored.workers.seen(worker)
    refused = perrin("db", "settle")
    assert (refused.returncode, "1 workers have been seen" in refused.stderr) == (2, True)
    restored.workers.gone("w")
    assert perrin("db", "settle").stdout == "3 jobs that were being worked on are queued again\n"
    all_are_let_go(restored, jobs)
    restored.close()


def test_the_local_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    prepare_store(settings)
    key = local_key(settings)
    assert local_key(settings) == key
    assert (tmp_path / "api_key").stat().st_mode & 0o777 == 0o600
    chosen = Settings(home=tmp_path, api_key="chosen-by-hand")
    assert local_key(chosen) == "chosen-by-hand"
    store = JobStore(settings.store_url)
    assert store.people.who(key) == store.people.who("chosen-by-hand")
    assert key.encode() not in (tmp_path / "perrin.db").read_bytes()
    store.close()


BEFORE = """
INSERT INTO users (id, name, created_at) VALUES ('u', 'local', 1), ('v', 'ann', 1);
INSERT INTO jobs (id, user_id, modality, model, parameters, format, label, search, request_sha256, pool, priority,
    run_after, state, created_at)
    VALUES ('low', 'u', 'dots', 'm', '{}', 'pgm', '', '', '', 'dots', -1, 0, 'queued', 100),
    ('high', 'u', 'dots', 'm', '{}', 'pgm', '', '', '', 'dots', 2, 0, 'queued', 200),
    ('later', 'u', 'dots', 'm', '{}', 'pgm', '', '', '', 'dots', 9, 1e9, 'queued', 300);
INSERT INTO jobs (id, user_id, modality, model, parameters, format, label, search, request_sha256, pool, priority,
    run_after, state, owner, lease_until, epoch, event_count, created_at)
    VALUES ('held', 'v', 'dots', 'm', '{}', 'pgm', '', '', '', 'other', 0, 0, 'running', 'o', 1, 1, 1, 50);
INSERT INTO events (job_id, number, at, kind, state, done, total, message)
    VALUES ('held', 1, 50, 'state', 'queued', 0, 0, '');
INSERT INTO artifacts (id, job_id, number, name, media_type, size, sha256, items, details, created_at)
    VALUES ('a', 'held', 0, 'n', 'm', 1, 'h', '[]', '{}', 1)
"""


def test_what_was_there_before_a_migration_is_there_after_it_and_back(empty_url: str) -> None:
    database = Database(empty_url)
    schema.upgrade(database, "0001")
    with database.engine.begin() as connection:
        for statement in BEFORE.split(";"):
            connection.exec_driver_sql(statement)
    schema.upgrade(database)
    store = JobStore(empty_url)
    assert [pool.name for pool in store.pools.all()] == ["dots", "other"]
    assert [store.people.add(name).operator for name in ("local", "ann")] == [True, False]
    assert [job.id for job in store.claim("x", "w", ["dots"], 2, 30.0)] == ["high", "low"]
    assert [job.id for job in store.expire_leases()] == ["held"]
    assert [event.message for event in store.events("held")] == ["", "its lease ran out"]
    assert store.artifact("a", "v").sha256 == "h"
    fresh = store.submit(NewJob("v", "dots", "m", {}, "pgm", "dots", run_after=1e12))[0]
    store.close()
    schema.downgrade(database, "0001")
    with database.engine.begin() as connection:
        found = dict(connection.exec_driver_sql("SELECT id, state FROM jobs ORDER BY id").all())
    assert found == {"held": "queued", "high": "leased", "later": "queued", "low": "leased", fresh.id: "queued"}
    schema.upgrade(database)
    store = JobStore(empty_url)
    assert store.get("high").priority == 2
    store.close()
    database.close()


def test_energy_comes_and_goes_with_its_revision_and_the_jobs_stay(empty_url: str) -> None:
    database = Database(empty_url)
    schema.upgrade(database, "0002")
    with database.engine.begin() as connection:
        for statement in BEFORE.split(";"):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("UPDATE jobs SET gpu_seconds = 2.5 WHERE id = 'held'")
    schema.upgrade(database)
    store = JobStore(empty_url)
    assert (store.get("held").gpu_seconds, store.get("held").joules) == (2.5, None)
    store.charge({"held": 1.5}, {"held": 60.0})
    assert (store.get("held").gpu_seconds, store.get("held").joules) == (4.0, 60.0)
    store.close()
    schema.downgrade(database, "0002")
    with database.engine.begin() as connection:
        found = connection.exec_driver_sql("SELECT id, gpu_seconds FROM jobs WHERE id = 'held'").all()
    assert [tuple(row) for row in found] == [("held", 4.0)]
    schema.upgrade(database)
    store = JobStore(empty_url)
    assert store.get("held").joules is None
    store.close()
    database.close()
