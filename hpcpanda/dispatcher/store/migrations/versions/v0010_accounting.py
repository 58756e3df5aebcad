"""What was used, lost and charged, by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "usage",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("used_s", sa.Float(), nullable=False),
        sa.Column("useful_s", sa.Float(), nullable=False),
        sa.Column("preempted_s", sa.Float(), nullable=False),
        sa.Column("lost_s", sa.Float(), nullable=False),
        sa.Column("held_s", sa.Float(), nullable=False),
        sa.Column("node_s", sa.Float(), nullable=False),
        sa.Column("waiting_s", sa.Float(), nullable=False),
        sa.Column("done", sa.Float(), nullable=False),
        sa.Column("failed", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("day", "edge", "task_id", name=op.f("pk_usage")),
    )
    op.create_index(op.f("ix_usage_task_id"), "usage", ["task_id"])
    op.create_table(
        "usage_tasks",
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("team", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_usage_tasks")),
    )
    op.create_table(
        "usage_reports",
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column("instance", sa.String(length=128), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("edge", "instance", name=op.f("pk_usage_reports")),
    )


def downgrade() -> None:
    """Undo. What was used is no longer told of."""
    op.drop_table("usage_reports")
    op.drop_table("usage_tasks")
    op.drop_index(op.f("ix_usage_task_id"), table_name="usage")
    op.drop_table("usage")
