"""Tasks that grow while what they read is written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply. No task that is there grows."""
    op.add_column("tasks", sa.Column("growing", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "growing_tasks",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("dataset_id", _ID, nullable=False),
        sa.Column("if_abandoned", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_growing_tasks_task_id")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.dataset_id"], name=op.f("fk_growing_tasks_dataset_id")
        ),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_growing_tasks")),
    )


def downgrade() -> None:
    """Undo. Tasks end with what they have; the code of then cannot read the specifications of those that grow, and those
    of which nothing is there yet are failed."""
    op.execute(
        "UPDATE tasks SET state = 'failed', message = 'the dataset that it reads had no files' "
        "WHERE state = 'pending' OR (state = 'paused' AND before = 'pending')"
    )
    op.drop_table("growing_tasks")
    op.drop_column("tasks", "growing")
