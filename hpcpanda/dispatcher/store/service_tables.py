"""Tables of the service itself: that it is there, and finished tasks put away."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint

from hpcpanda.dispatcher.store.tables import metadata

pulse = Table(
    "pulse",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("beat", Float, nullable=False),
)
"""One row: when a dispatcher last noted that it is there."""

archived_tasks = Table(
    "archived_tasks",
    metadata,
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("idempotency_key", String(200), nullable=True),
    Column("archived", Float, nullable=False),
    Column("task", Text, nullable=False),
    Column("details", Text, nullable=False),
    UniqueConstraint("owner", "idempotency_key"),
    Index(None, "state", "task_id"),
)
"""Tasks that came to an end long ago, each with all that is told of it as JSON: the task itself, and apart from it what
may be long; never changed."""
