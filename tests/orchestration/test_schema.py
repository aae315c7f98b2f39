"""Revisions: what the migrations make is what the models say, and a store of another age is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from perrin.errors import Conflict, InvalidInput, NotFound, SchemaMismatch
from perrin.settings import Settings
from perrin_orchestration.prepare import local_key, prepare_store
from perrin_orchestration.store import JobStore, NewJob, queries, rows, schema
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
    ordered = "jobs_queue_ix"  # neither database reflects a descending index as it was written
    opts = {"compare_type": True, "include_object": lambda _item, name, *_rest: name != ordered}
    with database.connection() as connection:
        context = MigrationContext.configure(connection, opts=opts)
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
    with pytest.raises(SchemaMismatch, match=r"is empty .* needs revision 0001: run `perrin db upgrade`"):
        schema.check(database)
    database.close()


def test_an_older_store_names_both_revisions_and_the_command(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "known", lambda: ("0002", "0001"))
    database = Database(store_url)
    with pytest.raises(SchemaMismatch, match=r"at revision 0001, older than 0002.*run `perrin db upgrade`"):
        schema.check(database)
    database.close()


def test_a_newer_store_names_both_revisions_and_is_left_alone(store_url: str) -> None:
    stamp(store_url, "9999")
    database = Database(store_url)
    for attempt in (schema.check, schema.upgrade):
        with pytest.raises(SchemaMismatch, match=r"at revision 9999, newer than 0001.*upgrade perrin") as newer:
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
    monkeypatch.setattr(schema, "known", lambda: ("0002", "0001"))
    monkeypatch.setattr(schema, "upgrade", lambda _database: "0002")
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
    monkeypatch.setattr(schema, "known", lambda: ("0002", "0001"))
    monkeypatch.setattr(schema, "upgrade", lambda _database: "0002")
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


def test_a_claim_reads_the_queue_in_the_order_of_its_index(sqlite_template: Path) -> None:
    database = Database(f"sqlite:///{sqlite_template}")
    values = {"owner": "o", "worker": "w", "pools": ("dots",), "now": 1.0, "until": 2.0, "limit": 4}
    plan = database.read(lambda c: rows.select(c, "EXPLAIN QUERY PLAN " + queries.CLAIM_SQLITE, values))
    steps = [row["detail"] for row in plan]
    assert any("jobs_queue_ix" in step for step in steps), steps
    assert not any("ORDER BY" in step for step in steps), steps
    database.close()
