"""Why tasks are where they are, as edges say."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "reasons",
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column(
            "task_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("reported", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_reasons_task_id")),
        sa.PrimaryKeyConstraint("edge", "task_id", name=op.f("pk_reasons")),
    )
    op.create_index(op.f("ix_reasons_task_id"), "reasons", ["task_id"], unique=False)


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("ix_reasons_task_id"), table_name="reasons")
    op.drop_table("reasons")
