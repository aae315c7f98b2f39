"""Uploads, the files that jobs take in, and an id of the store itself."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("used", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("uploads_user_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("uploads_pkey")),
        sa.UniqueConstraint("sha256", "user_id", name="uploads_sha256_key"),
    )
    where = sa.text("NOT used")
    op.create_index("uploads_unused_ix", "uploads", ["created_at"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "inputs",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("path", sa.String(length=200), nullable=False),
        sa.Column("file_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("inputs_job_id_fkey")),
        sa.PrimaryKeyConstraint("job_id", "path", name=op.f("inputs_pkey")),
    )
    op.create_index(op.f("inputs_file_id_ix"), "inputs", ["file_id"])
    store = op.create_table(
        "store",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("store_pkey")),
    )
    op.bulk_insert(store, [{"id": uuid.uuid4().hex}])


def downgrade() -> None:
    """Uploads are lost, and with them the jobs' files; their ids stay in the parameters."""
    op.drop_table("store")
    op.drop_table("inputs")
    op.drop_table("uploads")
