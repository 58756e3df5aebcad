"""That a dispatcher is there, and tasks put away."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "pulse",
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("beat", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("row", name=op.f("pk_pulse")),
    )
    op.create_table(
        "archived_tasks",
        sa.Column("task_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("archived", sa.Float(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_archived_tasks")),
        sa.UniqueConstraint("owner", "idempotency_key", name=op.f("uq_archived_tasks_owner_idempotency_key")),
    )
    op.create_index(op.f("ix_archived_tasks_state_task_id"), "archived_tasks", ["state", "task_id"])
    op.create_index(op.f("ix_tasks_state_updated"), "tasks", ["state", "updated"])
    op.create_index(op.f("ix_leases_edge_is_open"), "leases", ["edge", "is_open"])


def downgrade() -> None:
    """Undo. Tasks that were put away are no longer told of."""
    op.drop_index(op.f("ix_leases_edge_is_open"), table_name="leases")
    op.drop_index(op.f("ix_tasks_state_updated"), table_name="tasks")
    op.drop_index(op.f("ix_archived_tasks_state_task_id"), table_name="archived_tasks")
    op.drop_table("archived_tasks")
    op.drop_table("pulse")
