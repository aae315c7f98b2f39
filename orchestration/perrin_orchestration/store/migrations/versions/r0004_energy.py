"""Energy: what jobs and their attempts take of devices that tell."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("joules", sa.Double(), nullable=True))
    op.create_table(
        "costs",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.Column("joules", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("costs_job_id_fkey")),
        sa.PrimaryKeyConstraint("job_id", "epoch", name=op.f("costs_pkey")),
    )


def downgrade() -> None:
    """The seconds stay on the jobs; the energy is forgotten."""
    op.drop_table("costs")
    op.drop_column("jobs", "joules")
