"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "edges",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("instance", sa.String(length=128), nullable=False),
        sa.Column("cores", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("last_seen", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_edges")),
    )
    op.create_table(
        "tasks",
        sa.Column(
            "task_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("ready", sa.BigInteger(), nullable=False),
        sa.Column("leased", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("merged", sa.BigInteger(), nullable=False),
        sa.Column("max_failed", sa.BigInteger(), nullable=False),
        sa.Column("next_epoch", sa.BigInteger(), nullable=False),
        sa.Column("core_seconds", sa.Float(), nullable=False),
        sa.Column("guess", sa.Float(), nullable=True),
        sa.Column("rate", sa.Float(), nullable=False),
        sa.Column("rate_at", sa.Float(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_tasks_state_priority_task_id"), "tasks", ["state", "priority", "task_id"], unique=False
    )
    op.create_table(
        "tokens",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_tokens")),
    )
    op.create_table(
        "activity",
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column(
            "task_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("cores", sa.BigInteger(), nullable=False),
        sa.Column("cores_busy", sa.Float(), nullable=False),
        sa.Column("reported", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_activity_task_id")),
        sa.PrimaryKeyConstraint("edge", "task_id", name=op.f("pk_activity")),
    )
    op.create_index(op.f("ix_activity_task_id"), "activity", ["task_id"], unique=False)
    op.create_table(
        "failed_events",
        sa.Column(
            "task_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("event", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_failed_events_task_id")),
        sa.PrimaryKeyConstraint("task_id", "event", name=op.f("pk_failed_events")),
    )
    op.create_table(
        "leases",
        sa.Column(
            "task_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column("granted", sa.Text(), nullable=False),
        sa.Column("outstanding", sa.Text(), nullable=False),
        sa.Column("committed", sa.Text(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_leases_task_id")),
        sa.PrimaryKeyConstraint("task_id", "epoch", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_is_open_expires"), "leases", ["is_open", "expires"], unique=False)
    op.create_index(op.f("ix_leases_task_id_edge"), "leases", ["task_id", "edge"], unique=False)
    op.create_table(
        "outputs",
        sa.Column(
            "task_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_outputs_task_id")),
        sa.PrimaryKeyConstraint("task_id", "path", "edge", name=op.f("pk_outputs")),
    )
    op.create_table(
        "ready_ranges",
        sa.Column(
            "task_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_ready_ranges_task_id")),
        sa.PrimaryKeyConstraint("task_id", "first", name=op.f("pk_ready_ranges")),
    )
    op.create_index(op.f("ix_ready_ranges_task_id_last"), "ready_ranges", ["task_id", "last"], unique=False)
    op.create_table(
        "task_specs",
        sa.Column(
            "task_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_task_specs_task_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_specs")),
        sa.UniqueConstraint("owner", "idempotency_key", name=op.f("uq_task_specs_owner_idempotency_key")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("task_specs")
    op.drop_index(op.f("ix_ready_ranges_task_id_last"), table_name="ready_ranges")
    op.drop_table("ready_ranges")
    op.drop_table("outputs")
    op.drop_index(op.f("ix_leases_task_id_edge"), table_name="leases")
    op.drop_index(op.f("ix_leases_is_open_expires"), table_name="leases")
    op.drop_table("leases")
    op.drop_table("failed_events")
    op.drop_index(op.f("ix_activity_task_id"), table_name="activity")
    op.drop_table("activity")
    op.drop_table("tokens")
    op.drop_index(op.f("ix_tasks_state_priority_task_id"), table_name="tasks")
    op.drop_table("tasks")
    op.drop_table("edges")
