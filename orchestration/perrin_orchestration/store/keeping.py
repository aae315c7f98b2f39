"""Retention: jobs that ended long ago go, with their events and results; uploads that no job uses; bytes that no row
names."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from perrin_orchestration.store import rows
from perrin_orchestration.store.database import execute
from perrin_orchestration.store.life import Part
from perrin_orchestration.store.queries import keeping as sql

__all__ = ["UPLOAD_DAYS", "Keeper", "Removed", "Standing", "Upload"]

DAY = 86400.0

UPLOAD_DAYS = 1.0
"""An upload that no job uses is kept this long after it was last given."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What a clean-up deleted: ids of jobs, and hashes of their results that no other result has."""

    jobs: tuple[str, ...]
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """A job that has not ended: the epoch under which it is held, and the hash of its saved state; or None."""

    held: int | None
    saved: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a user gave."""

    id: str
    media_type: str
    size: int
    sha256: str
    created_at: float


class Keeper(Part):
    """Deletes from ``database`` what need not be kept."""

    def clean(self, keep_days: float, keep_failed_days: float, limit: int = 200) -> Removed:
        """Delete up to ``limit`` jobs that ended long enough ago, oldest first, in one transaction.

        A job stays while a job lives that takes its artifacts in.

        Args:
            keep_days: for so long a job that succeeded is kept, after its end; 0 is for ever.
            keep_failed_days: the same for jobs that came to nothing.
            limit: a short transaction holds nobody up; call again while this many go.
        """
        now = self._clock()
        good, bad = (now - days * DAY if days > 0 else 0.0 for days in (keep_days, keep_failed_days))
        values = {"succeeded_before": good, "others_before": bad, "latest": max(good, bad), "limit": limit}

        def work(connection: Connection) -> Removed:
            old = rows.select(connection, sql.OLD_JOBS, values)
            if old:
                ids = tuple(sorted(row["id"] for row in old))
                execute(connection, sql.LOCK_OLD, {"ids": ids})
                old = [row for row in rows.select(connection, sql.OLD_JOBS, values) if row["id"] in ids]
            if not old:
                return Removed((), ())
            ids = tuple(row["id"] for row in old)
            files = tuple({row["file_id"] for row in rows.select(connection, sql.DELETE_INPUTS, {"ids": ids})})
            named = {row["sha256"] for row in rows.select(connection, sql.DELETE_ARTIFACTS, {"ids": ids})}
            for query in (sql.DELETE_EVENTS, sql.DELETE_COSTS, sql.DELETE_EDGES, sql.FORGET_RETRY, sql.DELETE_JOBS):
                execute(connection, query, {"ids": ids})
            for query in (sql.LOCK_UPLOADS, sql.UNUSE_UPLOADS) if files else ():
                execute(connection, query, {"ids": files})
            groups = tuple({row["group_id"] for row in old} - {None})
            if groups:
                execute(connection, sql.DELETE_GROUPS, {"ids": groups})
            return Removed(ids, tuple(sorted(named - set(self._named(connection, named)))))

        return self.database.write(work) if values["latest"] > 0 else Removed((), ())

    # --- uploads ------------------------------------------------------------------------------------------------------

    def upload(self, user_id: str, media_type: str, size: int, sha256: str) -> Upload:
        """Write down that a user gave a file whose bytes are kept already."""
        values = {"id": uuid.uuid4().hex, "user_id": user_id, "media_type": media_type, "size": size, "sha256": sha256}
        values["now"] = self._clock()
        row = self.database.write(lambda c: rows.select(c, sql.KEEP_UPLOAD, values))[0]
        return Upload(row["id"], row["media_type"], row["size"], row["sha256"], row["created_at"])

    def clean_uploads(self, limit: int = 200) -> tuple[str, ...]:
        """Delete up to ``limit`` uploads that are older than `UPLOAD_DAYS` and that no job uses.

        Returns:
            Hashes that nothing has any more.
        """
        values = {"before": self._clock() - UPLOAD_DAYS * DAY, "limit": limit}

        def work(connection: Connection) -> tuple[str, ...]:
            ids = tuple(row["id"] for row in rows.select(connection, sql.UNUSED_UPLOADS, values))
            gone = rows.select(connection, sql.DELETE_UPLOADS, {**values, "ids": ids}) if ids else []
            named = {row["sha256"] for row in gone}
            return tuple(sorted(named - set(self._named(connection, named))))

        if not self.database.read(lambda c: rows.select(c, sql.UNUSED_UPLOADS, {**values, "limit": 1})):
            return ()  # the usual case takes no write lock
        return self.database.write(work)

    # --- what is still needed -----------------------------------------------------------------------------------------

    def store_id(self) -> str:
        """The id that this store has had since it was made, in its backups too."""
        return str(self.database.read(lambda c: rows.select(c, sql.STORE_ID))[0]["id"])

    def in_use(self, hashes: Iterable[str]) -> frozenset[str]:
        """Which of these hashes a result or an upload has."""
        return frozenset(self.database.read(lambda c: self._named(c, hashes)))

    def standing(self, job_ids: Iterable[str]) -> dict[str, Standing]:
        """Those of these jobs that have not ended; the others are over, or were never here."""
        ids = tuple(job_ids)
        found = self.database.read(lambda c: rows.select(c, sql.STANDING, {"ids": ids})) if ids else []
        return {row["id"]: Standing(row["held"], row["saved_sha256"]) for row in found}

    def _named(self, connection: Connection, hashes: Iterable[str]) -> list[str]:
        wanted = tuple(hashes)
        found = rows.select(connection, sql.HASHES_IN_USE, {"hashes": wanted}) if wanted else []
        return [row["sha256"] for row in found]
