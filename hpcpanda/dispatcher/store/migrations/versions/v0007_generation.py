"""How tasks are cut into jobs, and what their scouts have measured."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply. No task that is there is cut, and none has scouts."""
    op.add_column("tasks", sa.Column("is_split", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("tasks", sa.Column("scouts", sa.Integer(), nullable=False, server_default="0"))
    where = sa.text("scouts > 0")
    op.create_index("ix_tasks_scouting", "tasks", ["task_id"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "generation",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("scouts", sa.Integer(), nullable=False),
        sa.Column("most_jobs", sa.BigInteger(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("measured", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_generation_task_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_generation")),
    )
    op.create_table(
        "job_bounds",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("first_job", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bounds", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_job_bounds_task_id")),
        sa.PrimaryKeyConstraint("task_id", "first_job", name=op.f("pk_job_bounds")),
    )


def downgrade() -> None:
    """Undo. Tasks that are cut or have scouts end: the code of then cannot read what they are."""
    tasks = sa.table(
        "tasks", *(sa.column(name) for name in ("task_id", "state", "ready", "leased", "message"))
    )
    generation = sa.table("generation", sa.column("task_id"))
    theirs = tasks.c.task_id.in_(sa.select(generation.c.task_id))
    ending = theirs & tasks.c.state.not_in(("done", "finished", "failed", "aborted"))
    message = "the dispatcher was set back to a version that does not know tasks of this kind"
    op.get_bind().execute(
        sa.update(tasks).where(ending).values(state="failed", ready=0, leased=0, message=message)
    )
    op.drop_table("job_bounds")
    op.drop_table("generation")
    op.drop_index("ix_tasks_scouting", table_name="tasks")
    for column in ("scouts", "is_split"):
        op.drop_column("tasks", column)
