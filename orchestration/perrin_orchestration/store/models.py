"""The tables, typed. They declare the schema; statements live in `perrin_orchestration.store.queries`.

Times are seconds since 1970 (UTC) as doubles and JSON is text, so that one statement means the same on SQLite and on
PostgreSQL.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, MetaData, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["ApiKeyRow", "ArtifactRow", "Base", "EventRow", "JobRow", "OutboxRow", "UserRow", "WorkerRow"]

_Serial = BigInteger().with_variant(Integer, "sqlite")


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
    """Somebody who owns jobs."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[float]


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
    parents: Mapped[str] = mapped_column(server_default="[]")
    parents_left: Mapped[int] = mapped_column(server_default="0")

    pool: Mapped[str] = mapped_column(String(64))
    priority: Mapped[int]
    run_after: Mapped[float]
    deadline: Mapped[float | None]

    state: Mapped[str] = mapped_column(String(16))
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    epoch: Mapped[int] = mapped_column(server_default="0")
    owner: Mapped[str | None] = mapped_column(String(32))
    worker: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    crashes: Mapped[int] = mapped_column(server_default="0")

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
        Index(
            "jobs_queue_ix",
            text("priority DESC"),
            "number",
            "pool",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "jobs_lease_ix",
            "owner",
            "lease_until",
            sqlite_where=text("owner IS NOT NULL"),
            postgresql_where=text("owner IS NOT NULL"),
        ),
    )


class OutboxRow(Base):
    """A hint that is still to be sent; written in the transaction that made the job claimable."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    pool: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[float]


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
    seen_at: Mapped[float]
    finished_jobs: Mapped[int]
    memory_mb: Mapped[float | None]
    cpu_percent: Mapped[float | None]
    gpu_percent: Mapped[float | None]
