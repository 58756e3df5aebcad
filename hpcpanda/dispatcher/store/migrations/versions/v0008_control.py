"""Paused tasks, what failed and why, what is asked for in its place."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _of_tasks() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("held", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("before", sa.String(length=16), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("first_epoch", sa.BigInteger(), nullable=False, server_default="1"),
        sa.Column("more_memory", sa.Float(), nullable=False, server_default="1"),
        sa.Column("raised", sa.BigInteger(), nullable=False, server_default="1"),
        sa.Column("more_time", sa.Float(), nullable=False, server_default="1"),
        sa.Column("fenced", sa.Boolean(), nullable=False, server_default=sa.false()),
    )


def _of_sites() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("quarantined_until", sa.Float(), nullable=False, server_default="0"),
        sa.Column("faults", sa.Text(), nullable=True),
    )


def upgrade() -> None:
    """Apply. Nothing is paused, no site is in quarantine, and nobody knows how what failed before came to it."""
    for column in _of_tasks():
        op.add_column("tasks", column)
    for column in _of_sites():
        op.add_column("sites", column)
    op.add_column("failed_events", sa.Column("history", sa.Text(), nullable=True))
    op.create_table(
        "tried_again",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("event", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("history", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_tried_again_task_id")),
        sa.PrimaryKeyConstraint("task_id", "event", name=op.f("pk_tried_again")),
    )
    op.create_table(
        "fences",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column("first_epoch", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_fences_task_id")),
        sa.PrimaryKeyConstraint("task_id", "edge", name=op.f("pk_fences")),
    )


def downgrade() -> None:
    """Undo. Paused tasks run on; why something failed, and which sites were avoided for it, is forgotten."""
    op.execute("UPDATE tasks SET state = before, ready = ready + held WHERE state = 'paused'")
    op.drop_table("fences")
    op.drop_table("tried_again")
    op.drop_column("failed_events", "history")
    for column in _of_sites():
        op.drop_column("sites", column.name)
    for column in _of_tasks():
        op.drop_column("tasks", column.name)
