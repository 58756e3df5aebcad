"""Tables of what was used. Rows grow with days, sites and tasks; they stay when a task is put away."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table

from hpcpanda.dispatcher.store.tables import metadata

usage = Table(
    "usage",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("edge", String(128), primary_key=True),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("used_s", Float, nullable=False),
    Column("useful_s", Float, nullable=False),
    Column("preempted_s", Float, nullable=False),
    Column("lost_s", Float, nullable=False),
    Column("held_s", Float, nullable=False),
    Column("node_s", Float, nullable=False),
    Column("waiting_s", Float, nullable=False),
    Column("done", Float, nullable=False),
    Column("failed", Float, nullable=False),
    Index(None, "task_id"),
)
"""What a task has used at a site on a day, which is counted in whole days of UTC since 1970.

``done`` and ``failed`` are exact up to 2**53, and no sum of them overflows, whatever edges say."""

usage_tasks = Table(
    "usage_tasks",
    metadata,
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String(128), nullable=False),
    Column("team", String(128), nullable=False),
    Column("name", String(128), nullable=False),
)
"""Whose the tasks in ``usage`` are; ``team`` is the group, empty for none."""

usage_reports = Table(
    "usage_reports",
    metadata,
    Column("edge", String(128), primary_key=True),
    Column("instance", String(128), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)
"""The last report of usage of each edge instance that was counted."""
