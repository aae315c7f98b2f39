"""The tables, typed. They declare the schema; statements live in `perrin_orchestration.store.queries`.

Times are seconds since 1970 (UTC) as doubles and JSON is text, so that one statement means the same on SQLite and on
PostgreSQL.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, MetaData, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "ApiKeyRow",
    "ArtifactRow",
    "Base",
    "CostRow",
    "EdgeRow",
    "EventRow",
    "GroupRow",
    "InputRow",
    "JobRow",
    "OutboxRow",
    "PoolRow",
    "StoreRow",
    "UploadRow",
    "UserRow",
    "WorkerRow",
]

_Serial = BigInteger().with_variant(Integer, "sqlite")


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of the rows that one kind of statement is about, which are few."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


class Base(DeclarativeBase):
    """Metadata with named constraints, so that migrations can name them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_name)s_ix",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map = {float: Double, str: Text}  # noqa: RUF012 (SQLAlchemy's own form)


class UserRow(Base):
    """Somebody who owns jobs; with the account that shares GPUs fairly."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[float]
    operator: Mapped[bool] = mapped_column(server_default=text("false"))
    share: Mapped[float] = mapped_column(server_default="1")
    used: Mapped[float] = mapped_column(server_default="0")
    typical: Mapped[float] = mapped_column(server_default="1")
    active: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (_partial("users_active_ix", "id", where="active"),)


class ApiKeyRow(Base):
    """An API key, as the SHA-256 of it: the key itself is never stored."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    label: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]


class JobRow(Base):
    """A job: what was asked for, who holds it now, how far it is, how it ended."""

    __tablename__ = "jobs"

    number: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))

    modality: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(200))
    parameters: Mapped[str]
    format: Mapped[str] = mapped_column(String(16))
    label: Mapped[str]
    search: Mapped[str]
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_sha256: Mapped[str] = mapped_column(String(64))
    group_id: Mapped[str | None] = mapped_column(String(32))
    name: Mapped[str | None] = mapped_column(String(64))
    retry_of: Mapped[str | None] = mapped_column(String(32))
    parents_left: Mapped[int] = mapped_column(server_default="0")

    pool: Mapped[str] = mapped_column(String(64))
    priority: Mapped[int]
    run_after: Mapped[float]
    deadline: Mapped[float | None]
    rank: Mapped[float] = mapped_column(server_default="0")

    state: Mapped[str] = mapped_column(String(16))
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    epoch: Mapped[int] = mapped_column(server_default="0")
    owner: Mapped[str | None] = mapped_column(String(32))
    worker: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    crashes: Mapped[int] = mapped_column(server_default="0")
    retries: Mapped[int] = mapped_column(server_default="0")
    gpu_seconds: Mapped[float] = mapped_column(server_default="0")
    joules: Mapped[float | None]

    stage: Mapped[str | None] = mapped_column(String(16))
    done: Mapped[int] = mapped_column(server_default="0")
    total: Mapped[int] = mapped_column(server_default="0")
    event_count: Mapped[int] = mapped_column(server_default="0")
    saved_sha256: Mapped[str | None] = mapped_column(String(64))
    saved_at: Mapped[float | None]

    error_kind: Mapped[str | None] = mapped_column(String(32))
    error_message: Mapped[str | None]

    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key", name="jobs_idempotency_key"),
        Index("jobs_user_ix", "user_id", "number"),
        _partial("jobs_live_ix", "pool", "state", "created_at", where="finished_at IS NULL"),
        _partial("jobs_queue_ix", "pool", "user_id", "rank", "number", where="state = 'queued'"),
        _partial("jobs_due_ix", "run_after", where="state = 'waiting' AND parents_left = 0"),
        _partial("jobs_deadline_ix", "deadline", where="deadline IS NOT NULL AND finished_at IS NULL"),
        _partial("jobs_lease_ix", "lease_until", where="owner IS NOT NULL"),
        _partial("jobs_owner_ix", "owner", where="owner IS NOT NULL"),
        _partial("jobs_held_ix", "user_id", where="owner IS NOT NULL"),
        _partial("jobs_dead_ix", "user_id", "number", where="state IN ('failed', 'quarantined')"),
        _partial("jobs_group_ix", "group_id", "number", where="group_id IS NOT NULL"),
        _partial("jobs_retry_ix", "retry_of", where="retry_of IS NOT NULL", unique=True),
        _partial("jobs_finished_ix", "finished_at", "state", "pool", "created_at", where="finished_at IS NOT NULL"),
    )


class CostRow(Base):
    """What one attempt at a job has taken of a device."""

    __tablename__ = "costs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    gpu_seconds: Mapped[float]
    joules: Mapped[float | None]


class GroupRow(Base):
    """Jobs that were submitted together."""

    __tablename__ = "groups"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    label: Mapped[str]
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float]

    __table_args__ = (
        UniqueConstraint("user_id", "idempotency_key", name="groups_idempotency_key"),
        Index("groups_user_ix", "user_id", "created_at", "id"),
    )


class EdgeRow(Base):
    """A child waits for a parent; ``parameter`` of the child takes the id of the parent's artifact number ``item``."""

    __tablename__ = "edges"

    child_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    parameter: Mapped[str | None] = mapped_column(String(64))
    item: Mapped[int]

    __table_args__ = (Index("edges_parent_ix", "parent_id"),)


class PoolRow(Base):
    """A pool of workers: open, paused, draining or blocked, and why."""

    __tablename__ = "pools"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]
    changed_at: Mapped[float]


class OutboxRow(Base):
    """A hint that is still to be sent; written in the transaction that made the job claimable."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    pool: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[float]

    __table_args__ = (Index("outbox_pool_ix", "pool", "id"),)


class ArtifactRow(Base):
    """A result file; its bytes lie in the artifact store under their hash."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    name: Mapped[str] = mapped_column(String(200))
    media_type: Mapped[str] = mapped_column(String(100))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    items: Mapped[str]
    details: Mapped[str]
    created_at: Mapped[float]

    __table_args__ = (UniqueConstraint("job_id", "number"),)


class UploadRow(Base):
    """A file that a user gave; its bytes lie beside those of results. Nothing uses it, or at least one job does."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    media_type: Mapped[str] = mapped_column(String(100))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    used: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[float]

    __table_args__ = (
        UniqueConstraint("sha256", "user_id", name="uploads_sha256_key"),
        _partial("uploads_unused_ix", "created_at", where="NOT used"),
    )


class InputRow(Base):
    """A job takes a file in, an artifact or an upload, at a place of its parameters; not what its parents will make."""

    __tablename__ = "inputs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    path: Mapped[str] = mapped_column(String(200), primary_key=True)
    file_id: Mapped[str] = mapped_column(String(32), index=True)


class StoreRow(Base):
    """The store itself, in one row. Its id is also written beside its artifacts, which no other store may clean up."""

    __tablename__ = "store"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)


class EventRow(Base):
    """Something that happened to a job; ``number`` rises by one within the job."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(16))
    done: Mapped[int]
    total: Mapped[int]
    message: Mapped[str]
    epoch: Mapped[int] = mapped_column(server_default="0")
    owner: Mapped[str | None] = mapped_column(String(32))
    worker: Mapped[str | None] = mapped_column(String(32))
    error_kind: Mapped[str | None] = mapped_column(String(32))


class WorkerRow(Base):
    """A supervisor and its engine processes, under an id that is never used twice."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    device: Mapped[str] = mapped_column(String(200))
    pool: Mapped[str] = mapped_column(String(400))
    state: Mapped[str] = mapped_column(String(16))
    models: Mapped[str]
    drain: Mapped[bool] = mapped_column(server_default=text("false"))
    started_at: Mapped[float]
    seen_at: Mapped[float] = mapped_column(index=True)
    finished_jobs: Mapped[int]
    memory_mb: Mapped[float | None]
    cpu_percent: Mapped[float | None]
    gpu_percent: Mapped[float | None]

    __table_args__ = (Index("workers_started_ix", "started_at", "id"),)
