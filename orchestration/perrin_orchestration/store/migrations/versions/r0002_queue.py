"""Fair share, ageing, retries, pools, groups, dependencies, history and retention."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

AGEING_SECONDS = 60.0

PARTIAL: dict[str, tuple[list[str], str]] = {
    "jobs_queue_ix": (["pool", "user_id", "rank", "number"], "state = 'queued'"),
    "jobs_live_ix": (["pool", "state", "created_at"], "finished_at IS NULL"),
    "jobs_due_ix": (["run_after"], "state = 'waiting' AND parents_left = 0"),
    "jobs_deadline_ix": (["deadline"], "deadline IS NOT NULL AND finished_at IS NULL"),
    "jobs_lease_ix": (["lease_until"], "owner IS NOT NULL"),
    "jobs_owner_ix": (["owner"], "owner IS NOT NULL"),
    "jobs_held_ix": (["user_id"], "owner IS NOT NULL"),
    "jobs_dead_ix": (["user_id", "number"], "state IN ('failed', 'quarantined')"),
    "jobs_group_ix": (["group_id", "number"], "group_id IS NOT NULL"),
    "jobs_retry_ix": (["retry_of"], "retry_of IS NOT NULL"),
    "jobs_finished_ix": (["finished_at", "state", "pool", "created_at"], "finished_at IS NOT NULL"),
}


def upgrade() -> None:
    for name in ("jobs_queue_ix", "jobs_lease_ix"):
        op.drop_index(name, "jobs")
    _columns()
    _tables()
    for name, (columns, where) in PARTIAL.items():
        _partial(name, "jobs", columns, where, unique=name == "jobs_retry_ix")
    _partial("users_active_ix", "users", ["id"], "active")
    op.create_index("outbox_pool_ix", "outbox", ["pool", "id"])
    op.create_index(op.f("workers_seen_at_ix"), "workers", ["seen_at"])
    op.create_index("workers_started_ix", "workers", ["started_at", "id"])
    _rows()


def downgrade() -> None:
    """What waits for its time or its parents is queued at once: the older store knows no waiting."""
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'waiting'")
    for name in ("workers_started_ix", "workers_seen_at_ix"):
        op.drop_index(name, "workers")
    op.drop_index("outbox_pool_ix", "outbox")
    op.drop_index("users_active_ix", "users")
    for name in PARTIAL:
        op.drop_index(name, "jobs")
    for table in ("edges", "groups", "pools"):
        op.drop_table(table)
    op.execute("UPDATE jobs SET group_id = NULL")
    for name in ("error_kind", "worker", "owner", "epoch"):
        op.drop_column("events", name)
    for name in ("gpu_seconds", "retries", "rank", "retry_of", "name"):
        op.drop_column("jobs", name)
    for name in ("active", "typical", "used", "share", "operator"):
        op.drop_column("users", name)
    op.add_column("jobs", sa.Column("parents", sa.Text(), server_default="[]", nullable=False))
    _partial("jobs_lease_ix", "jobs", ["owner", "lease_until"], "owner IS NOT NULL")
    where = sa.text("state = 'queued'")
    columns: list[Any] = [sa.text("priority DESC"), "number", "pool"]
    op.create_index("jobs_queue_ix", "jobs", columns, sqlite_where=where, postgresql_where=where)


def _partial(name: str, table: str, columns: list[str], where: str, unique: bool = False) -> None:
    op.create_index(name, table, columns, unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _columns() -> None:
    op.drop_column("jobs", "parents")
    op.add_column("jobs", sa.Column("name", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("retry_of", sa.String(length=32), nullable=True))
    op.add_column("jobs", sa.Column("rank", sa.Double(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("retries", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("gpu_seconds", sa.Double(), server_default="0", nullable=False))
    op.add_column("events", sa.Column("epoch", sa.Integer(), server_default="0", nullable=False))
    op.add_column("events", sa.Column("owner", sa.String(length=32), nullable=True))
    op.add_column("events", sa.Column("worker", sa.String(length=32), nullable=True))
    op.add_column("events", sa.Column("error_kind", sa.String(length=32), nullable=True))
    op.add_column("users", sa.Column("operator", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("users", sa.Column("share", sa.Double(), server_default="1", nullable=False))
    op.add_column("users", sa.Column("used", sa.Double(), server_default="0", nullable=False))
    op.add_column("users", sa.Column("typical", sa.Double(), server_default="1", nullable=False))
    op.add_column("users", sa.Column("active", sa.Boolean(), server_default=sa.text("false"), nullable=False))


def _tables() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("groups_user_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("groups_pkey")),
        sa.UniqueConstraint("user_id", "idempotency_key", name="groups_idempotency_key"),
    )
    op.create_index("groups_user_ix", "groups", ["user_id", "created_at", "id"])
    op.create_table(
        "edges",
        sa.Column("child_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.String(length=32), nullable=False),
        sa.Column("parameter", sa.String(length=64), nullable=True),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["child_id"], ["jobs.id"], name=op.f("edges_child_id_fkey")),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"], name=op.f("edges_parent_id_fkey")),
        sa.PrimaryKeyConstraint("child_id", "number", name=op.f("edges_pkey")),
    )
    op.create_index("edges_parent_ix", "edges", ["parent_id"])
    op.create_table(
        "pools",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pools_pkey")),
    )


def _rows() -> None:
    """Jobs that are here already get their place in line; so do their pools, and this machine's own user."""
    jobs = sa.table("jobs", sa.column("rank"), sa.column("created_at"), sa.column("run_after"), sa.column("priority"))
    begins = sa.case((jobs.c.run_after > jobs.c.created_at, jobs.c.run_after), else_=jobs.c.created_at)
    op.execute(jobs.update().values(rank=begins - AGEING_SECONDS * jobs.c.priority))
    op.execute(
        "INSERT INTO pools (name, state, reason, changed_at) SELECT pool, 'open', '', MIN(created_at) FROM jobs "
        "GROUP BY pool"
    )
    op.execute("UPDATE users SET operator = TRUE WHERE name = 'local'")
