"""Tables of how tasks are cut into jobs. Rows grow with tasks, and with jobs of irregular boundaries by the thousand."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, Table, Text

from hpcpanda.dispatcher.store.tables import _Id, metadata

generation = Table(
    "generation",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("scouts", Integer, nullable=False),
    Column("most_jobs", BigInteger, nullable=False),
    Column("plan", Text, nullable=False),
    Column("measured", Text, nullable=False),
)
"""One row a task that is cut, or has scouts: how many of these, the most jobs it can have, its cuts, and what its scouts have used; as JSON."""

job_bounds = Table(
    "job_bounds",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("first_job", BigInteger, primary_key=True, autoincrement=False),
    Column("bounds", Text, nullable=False),
)
"""Positions where jobs begin, some thousands a row, and where the last of them ends; as JSON."""

job_pieces = Table(
    "job_pieces",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("why", Text, nullable=True),
)
"""What those jobs have now that were too large, in the place of what cuts and bounds say, and those that came of them. The
latter have ``why``, in words."""
