"""Datasets that are opened again, and tasks that then read on; jobs that are cut as files come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_READS = sa.text("dataset_id IS NOT NULL")


def upgrade() -> None:
    """Apply. Who has closed a dataset is not known: it stays closed, as if its owner had. Tasks that grow have seen what they
    have taken in."""
    op.add_column("datasets", sa.Column("closed_by", sa.BigInteger(), nullable=True))
    op.add_column("growing_tasks", sa.Column("seen", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE growing_tasks SET seen = "
        "(SELECT total FROM tasks WHERE tasks.task_id = growing_tasks.task_id)"
    )
    op.create_index("ix_tasks_reading", "tasks", ["dataset_id"], sqlite_where=_READS, postgresql_where=_READS)


def downgrade() -> None:
    """Undo. Tasks of jobs end with those that are cut; the code of then cannot read their specifications, and those of which
    nothing is there yet are failed."""
    op.execute(
        "UPDATE tasks SET state = 'failed', message = 'the dataset that it reads had no files' "
        "WHERE is_split AND (state = 'pending' OR (state = 'paused' AND before = 'pending'))"
    )
    op.execute("UPDATE tasks SET growing = false WHERE is_split")
    op.execute("DELETE FROM growing_tasks WHERE task_id IN (SELECT task_id FROM tasks WHERE NOT growing)")
    op.drop_index("ix_tasks_reading", table_name="tasks")
    op.drop_column("growing_tasks", "seen")
    op.drop_column("datasets", "closed_by")
