"""The tables. Rows grow with tasks, leases and fragments, never with events.

What changes with every commit (``tasks``, ``leases``) is kept apart from what may be large
(``task_specs``), so that a commit costs the same whatever the task.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere; SQLite numbers rows by itself only in a column declared INTEGER."""


def _some_of_lane(name: str, condition: str, *columns: str | TextClause) -> Index:
    """An index of those tasks of a lane for which a condition holds, in an order."""
    where = text(condition)
    return Index(f"ix_tasks_lane_{name}", "lane_id", *columns, sqlite_where=where, postgresql_where=where)


_READS = text("dataset_id IS NOT NULL")

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", _Id, primary_key=True, autoincrement=True),
    Column("owner", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("ready", BigInteger, nullable=False),
    Column("leased", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("merged", BigInteger, nullable=False),
    Column("max_failed", BigInteger, nullable=False),
    Column("next_epoch", BigInteger, nullable=False),
    Column("core_seconds", Float, nullable=False),
    Column("guess", Float, nullable=True),
    Column("rate", Float, nullable=False),
    Column("rate_at", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("message", Text, nullable=True),
    Column("job_cores", Integer, nullable=True),
    Column("job_memory_mb", BigInteger, nullable=True),
    Column("job_gpus", Integer, nullable=True),
    Column("job_nodes", Integer, nullable=True),
    Column("job_ranks_per_node", Integer, nullable=True),
    Column("job_walltime_s", Float, nullable=True),
    Column("job_disk_mb", BigInteger, nullable=True),
    Column("job_clones", Integer, nullable=True),
    Column("in_container", Boolean, nullable=False, server_default=false()),
    Column("lane_id", _Id, nullable=False, server_default="1"),
    Column("served", Float, nullable=False, server_default="0"),
    Column("deadline", Float, nullable=True),
    Column("dataset_id", BigInteger, nullable=True),
    Column("writes_id", BigInteger, nullable=True),
    Column("is_split", Boolean, nullable=False, server_default=false()),
    Column("scouts", Integer, nullable=False, server_default="0"),
    Column("held", BigInteger, nullable=False, server_default="0"),
    Column("before", String(16), nullable=True),
    Column("tries", Integer, nullable=False, server_default="1"),
    Column("first_epoch", BigInteger, nullable=False, server_default="1"),
    Column("more_memory", Float, nullable=False, server_default="1"),
    Column("raised", BigInteger, nullable=False, server_default="1"),
    Column("more_time", Float, nullable=False, server_default="1"),
    Column("fenced", Boolean, nullable=False, server_default=false()),
    Column("growing", Boolean, nullable=False, server_default=false()),
    Index(None, "state", "priority", "task_id"),
    Index(None, "state", "updated"),
    _some_of_lane("priority", "ready > 0", text("priority DESC"), "task_id"),
    _some_of_lane("served", "ready > 0", "served", "task_id"),
    _some_of_lane("deadline", "ready > 0 AND deadline IS NOT NULL", "deadline", "task_id"),
    _some_of_lane("leased", "leased > 0"),
    Index(
        "ix_tasks_scouting", "task_id", sqlite_where=text("scouts > 0"), postgresql_where=text("scouts > 0")
    ),
    Index("ix_tasks_reading", "dataset_id", sqlite_where=_READS, postgresql_where=_READS),
    sqlite_autoincrement=True,
)
"""One row a task: its state and the counts of its ledger; ``job_*``, what each of its jobs asks for, is null
for a task of events."""

task_specs = Table(
    "task_specs",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("owner", String(128), nullable=False),
    Column("idempotency_key", String(200), nullable=True),
    Column("spec", Text, nullable=False),
    UniqueConstraint("owner", "idempotency_key"),
)
"""What the user submitted, as JSON; never changed."""

ready_ranges = Table(
    "ready_ranges",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Index(None, "task_id", "last"),
)
"""Fragments ``[first, last)`` of the events that nobody holds; never touching each other."""

leases = Table(
    "leases",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("edge", String(128), nullable=False),
    Column("granted", Text, nullable=False),
    Column("outstanding", Text, nullable=False),
    Column("committed", Text, nullable=False),
    Column("expires", Float, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Index(None, "is_open", "expires"),
    Index(None, "task_id", "edge"),
    Index(None, "edge", "is_open"),
)
"""Leases with their events as JSON lists of bounds; closed ones stay to answer repeated messages."""

failed_events = Table(
    "failed_events",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("event", BigInteger, primary_key=True, autoincrement=False),
    Column("error", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("history", Text, nullable=True),
)
"""Events set aside for good, one row each: they are listed to the user one by one. ``history``, how they came to it,
is JSON."""

edges = Table(
    "edges",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("instance", String(128), nullable=False),
    Column("cores", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("room", Text, nullable=True),
)
"""Edges that have registered; ``room`` covers all that they have asked for since, as JSON."""

outputs = Table(
    "outputs",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("path", Text, primary_key=True),
    Column("edge", String(128), primary_key=True),
    Column("manifest", Text, nullable=False),
    Column("events", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
)
"""Merged files, each at the site of its edge."""

activity = Table(
    "activity",
    metadata,
    Column("edge", String(128), primary_key=True),
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("cores", BigInteger, nullable=False),
    Column("cores_busy", Float, nullable=False),
    Column("reported", Float, nullable=False),
    Index(None, "task_id"),
)
"""What each edge last said it is doing."""

reasons = Table(
    "reasons",
    metadata,
    Column("edge", String(128), primary_key=True),
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("why", Text, nullable=False),
    Column("reported", Float, nullable=False),
    Index(None, "task_id"),
)
"""What each edge last said of why its tasks are where they are, as JSON."""

tokens = Table(
    "tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("scope", String(16), nullable=False),
    Column("name", String(128), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=True),
    Column("parent", String(64), nullable=True),
    Index(None, "parent"),
    Index(None, "expires"),
)
"""SHA-256 of the bearer tokens, with what they allow and to whom; ``parent``, in place of which one it was given."""
