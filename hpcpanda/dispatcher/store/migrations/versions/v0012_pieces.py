"""Jobs that were split since they were too large; nodes that are given nothing for a while."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SPLIT = "task_id IN (SELECT task_id FROM job_pieces) AND state IN ('ready', 'running', 'paused')"


def upgrade() -> None:
    """Apply. No job was split, no node is in quarantine."""
    op.create_table(
        "job_pieces",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("job", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_job_pieces_task_id")),
        sa.PrimaryKeyConstraint("task_id", "job", name=op.f("pk_job_pieces")),
    )
    op.add_column("sites", sa.Column("nodes", sa.Text(), nullable=True))


def downgrade() -> None:
    """Undo. The code of then does not know which job has what of a task whose jobs were split: such a task that has work
    left fails. One that has ended must not be tried again."""
    op.execute(
        f"UPDATE leases SET outstanding = '[]', is_open = false "  # noqa: S608 - constant text
        f"WHERE is_open AND task_id IN (SELECT task_id FROM tasks WHERE {_SPLIT})"
    )
    op.execute(f"DELETE FROM ready_ranges WHERE task_id IN (SELECT task_id FROM tasks WHERE {_SPLIT})")  # noqa: S608
    op.execute(
        f"UPDATE tasks SET state = 'failed', ready = 0, held = 0, leased = 0, "  # noqa: S608
        f"message = 'its jobs were split, which this version does not know' WHERE {_SPLIT}"
    )
    op.drop_column("sites", "nodes")
    op.drop_table("job_pieces")
