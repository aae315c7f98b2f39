"""Before the first process: a store at the newest revision, backed up before it is migrated, and a user with a key."""

from __future__ import annotations

import os
from pathlib import Path

from perrin.errors import SchemaMismatch
from perrin.settings import Settings
from perrin_orchestration.store import JobStore, schema
from perrin_orchestration.store.database import Database
from perrin_orchestration.store.people import new_api_key

__all__ = ["local_key", "prepare_store"]

LOCAL_USER = "local"


def prepare_store(settings: Settings, *, backed_up: bool = False) -> Path | None:
    """Bring the store to the newest revision; where it was copied to before, if it held anything.

    Args:
        settings: where the store is.
        backed_up: the person says that a PostgreSQL store has been backed up.

    Raises:
        SchemaMismatch: it is newer than this Perrin; or it is PostgreSQL, older, and must be backed up first.
    """
    database = Database(settings.store_url)
    try:
        found = schema.revision(database)
        if found == schema.newest():
            return None
        if found is None:
            schema.upgrade(database)
            return None
        if found not in schema.known():
            schema.check(database)
        if database.path is None:
            if not backed_up:
                raise SchemaMismatch(
                    f"the job store {database.name} is at revision {found}, older than {schema.newest()}: "
                    "back it up with pg_dump, then run `perrin db upgrade --backed-up`"
                )
            schema.upgrade(database)
            return None
        copy = schema.backup(database, settings.home_path / "backups" / schema.backup_name(database))
        schema.upgrade(database)
        return copy
    finally:
        database.close()


def local_key(settings: Settings) -> str:
    """The API key of this machine's own user: the one configured, else one that is made once and kept under home."""
    path = settings.home_path / "api_key"
    key = settings.api_key or (path.read_text().strip() if path.exists() else "") or new_api_key()
    if not settings.api_key and not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(key + "\n")
    store = JobStore(settings.store_url)
    try:
        store.people.allow(store.people.add(LOCAL_USER, operator=True), key, "perrin up")
    finally:
        store.close()
    return key
