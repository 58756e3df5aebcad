"""Order and brokerage: lanes with what they have used, sites with what they are, links, and notes of the broker."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0009"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NOTHING = '{"architectures":[],"tags":[],"data_policy":null,"sites":[],"not_sites":[]}'
"""The requirements of a task that has none."""
_DIGEST = hashlib.sha256(_NOTHING.encode()).hexdigest()


def upgrade() -> None:
    """Apply. The tasks that are there wait in one lane a user, and count as last served when last changed; those that a
    dispatcher of the earlier version may still insert, in the first lane, of nobody."""
    lanes = op.create_table(
        "lanes",
        sa.Column("lane_id", _ID, autoincrement=True, nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("task_group", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("requirements", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("lane_id", name=op.f("pk_lanes")),
        sa.UniqueConstraint("owner", "task_group", "digest", name=op.f("uq_lanes_owner_task_group_digest")),
    )
    op.create_table(
        "lane_usage",
        sa.Column("lane_id", _ID, autoincrement=False, nullable=False),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("core_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("lane_id", "hour", name=op.f("pk_lane_usage")),
    )
    op.create_index(op.f("ix_lane_usage_hour"), "lane_usage", ["hour"], unique=False)
    _create_tables_of_sites()
    op.add_column("tasks", sa.Column("lane_id", _ID, nullable=False, server_default="1"))
    op.add_column("tasks", sa.Column("served", sa.Float(), nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("deadline", sa.Float(), nullable=True))
    _fill(lanes)
    for name, columns, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, "tasks", columns, sqlite_where=where, postgresql_where=where)


_INDEXES: tuple[tuple[str, list[str | sa.TextClause], str], ...] = (
    ("ix_tasks_lane_priority", ["lane_id", sa.text("priority DESC"), "task_id"], "ready > 0"),
    ("ix_tasks_lane_served", ["lane_id", "served", "task_id"], "ready > 0"),
    ("ix_tasks_lane_deadline", ["lane_id", "deadline", "task_id"], "ready > 0 AND deadline IS NOT NULL"),
    ("ix_tasks_lane_leased", ["lane_id"], "leased > 0"),
)


def _create_tables_of_sites() -> None:
    op.create_table(
        "sites",
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column("architecture", sa.String(length=128), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("asked", sa.Float(), nullable=False),
        sa.Column("hungry", sa.Boolean(), nullable=False),
        sa.Column("granted", sa.Float(), nullable=False),
        sa.Column("committed", sa.Float(), nullable=False),
        sa.Column("failure_rate", sa.Float(), nullable=False),
        sa.Column("queue_wait_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("edge", name=op.f("pk_sites")),
    )
    op.create_index(op.f("ix_sites_hungry_asked"), "sites", ["hungry", "asked"], unique=False)
    op.create_table(
        "links",
        sa.Column("source", sa.String(length=128), nullable=False),
        sa.Column("destination", sa.String(length=128), nullable=False),
        sa.Column("bytes_per_s", sa.Float(), nullable=False),
        sa.Column("seen", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("source", "destination", name=op.f("pk_links")),
    )
    op.create_table(
        "broker_notes",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("edge", sa.String(length=128), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("noted", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_broker_notes_task_id")),
        sa.PrimaryKeyConstraint("task_id", "edge", name=op.f("pk_broker_notes")),
    )
    op.create_table(
        "task_data",
        sa.Column("task_id", _ID, autoincrement=False, nullable=False),
        sa.Column("place", sa.String(length=128), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_task_data_task_id")),
        sa.PrimaryKeyConstraint("task_id", "place", name=op.f("pk_task_data")),
    )


def _fill(lanes: sa.Table) -> None:
    plain = {"task_group": "", "digest": _DIGEST, "requirements": _NOTHING}
    connection = op.get_bind()
    connection.execute(sa.insert(lanes).values(owner="", **plain))
    tasks = sa.table(
        "tasks",
        *(sa.column(name) for name in ("owner", "lane_id", "served", "updated")),
    )
    values = [sa.literal(value, sa.Text()).label(name) for name, value in plain.items()]
    owners = sa.select(tasks.c.owner, *values).distinct()
    connection.execute(sa.insert(lanes).from_select(["owner", *plain], owners))
    of_owner = sa.select(lanes.c.lane_id).where(lanes.c.owner == tasks.c.owner).scalar_subquery()
    connection.execute(sa.update(tasks).values(lane_id=of_owner, served=tasks.c.updated))
    edges = sa.table("edges", sa.column("name", sa.String()))
    facts = {"tags": "[]", "asked": 0.0, "hungry": False, "granted": 0.0, "committed": 0.0}
    facts |= {"failure_rate": 0.0, "queue_wait_s": 0.0}
    sites = sa.table("sites", sa.column("edge", sa.String()), *(sa.column(name) for name in facts))
    known = sa.select(edges.c.name, *(sa.literal(value).label(name) for name, value in facts.items()))
    connection.execute(sa.insert(sites).from_select(["edge", *facts], known))


def downgrade() -> None:
    """Undo."""
    for name, _, _ in _INDEXES:
        op.drop_index(name, table_name="tasks")
    for column in ("lane_id", "served", "deadline"):
        op.drop_column("tasks", column)
    for table in ("task_data", "broker_notes", "links", "sites", "lane_usage", "lanes"):
        op.drop_table(table)
