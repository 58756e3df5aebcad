"""Tables of order and brokerage. Rows grow with users, hours, sites and tasks, never with events."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from hpcpanda.dispatcher.store.tables import metadata

_Id = BigInteger().with_variant(Integer, "sqlite")

lanes = Table(
    "lanes",
    metadata,
    Column("lane_id", _Id, primary_key=True, autoincrement=True),
    Column("owner", String(128), nullable=False),
    Column("task_group", String(128), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("requirements", Text, nullable=False),
    UniqueConstraint("owner", "task_group", "digest"),
)
"""Tasks of one user and group that demand the same of sites wait in one lane. ``task_group`` is empty for none;
``requirements`` are JSON, ``digest`` their SHA-256."""

lane_usage = Table(
    "lane_usage",
    metadata,
    Column("lane_id", _Id, primary_key=True, autoincrement=False),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("core_seconds", Float, nullable=False),
    Index(None, "hour"),
)
"""Core-seconds committed by lane and hour since 1970."""

sites = Table(
    "sites",
    metadata,
    Column("edge", String(128), primary_key=True),
    Column("architecture", String(128), nullable=True),
    Column("tags", Text, nullable=False),
    Column("asked", Float, nullable=False),
    Column("hungry", Boolean, nullable=False),
    Column("granted", Float, nullable=False),
    Column("committed", Float, nullable=False),
    Column("failure_rate", Float, nullable=False),
    Column("queue_wait_s", Float, nullable=False),
    Column("quarantined_until", Float, nullable=False, server_default="0"),
    Column("faults", Text, nullable=True),
    Column("nodes", Text, nullable=True),
    Index(None, "hungry", "asked"),
)
"""What brokerage knows of the site of each edge: ``tags`` is a JSON list, times are Unix seconds. ``faults``, the last
that were put down to the site itself, are a JSON list; so are those of its ``nodes``, with how long nothing is started on
them."""

links = Table(
    "links",
    metadata,
    Column("source", String(128), primary_key=True),
    Column("destination", String(128), primary_key=True),
    Column("bytes_per_s", Float, nullable=False),
    Column("seen", Float, nullable=False),
)
"""Throughput from site to site, as learnt from copies of ``seen`` bytes in all."""

broker_notes = Table(
    "broker_notes",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("edge", String(128), primary_key=True),
    Column("why", Text, nullable=False),
    Column("noted", Float, nullable=False),
)
"""Why an edge was last given, or refused, some of a task, as JSON."""

task_data = Table(
    "task_data",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("place", String(128), primary_key=True),
    Column("size", BigInteger, nullable=False),
)
"""Bytes of a task's inputs by the site or store where they are; the empty place has what there is in all."""
