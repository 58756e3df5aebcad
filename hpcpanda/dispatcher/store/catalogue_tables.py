"""Tables of the built-in catalogue. Rows grow with files, copies of files, and tasks, never with events."""

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

datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", _Id, primary_key=True, autoincrement=True),
    Column("scope", String(25), nullable=False),
    Column("name", String(250), nullable=False),
    Column("owner", String(128), nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("meta", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("closed_by", BigInteger, nullable=True),
    UniqueConstraint("scope", "name"),
    sqlite_autoincrement=True,
)
"""One row a dataset, with the counts of its files; ``meta`` is JSON. Whoever adds files holds it. ``closed_by``: the task
whose end has closed it; null while it is open, and when its owner has."""

dataset_files = Table(
    "dataset_files",
    metadata,
    Column("dataset_id", _Id, ForeignKey("datasets.dataset_id"), primary_key=True, autoincrement=False),
    Column("ordinal", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(250), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("checksum", String(80), nullable=True),
    Column("digest", String(80), nullable=True),
    Column("clusters", Text, nullable=True),
    Column("meta", Text, nullable=True),
    Column("task_id", BigInteger, nullable=True),
    UniqueConstraint("dataset_id", "name"),
    Index(None, "dataset_id", "first"),
)
"""Files in their order, which never changes; ``first``: the events of all before. ``clusters`` and ``meta`` are JSON, null
when empty; ``task_id`` is of the task that has made the file, which may have been put away since."""

replicas = Table(
    "replicas",
    metadata,
    Column("dataset_id", _Id, ForeignKey("datasets.dataset_id"), primary_key=True, autoincrement=False),
    Column("site", String(128), primary_key=True),
    Column("ordinal", BigInteger, primary_key=True, autoincrement=False),
    Column("path", Text, nullable=False),
)
"""Copies of files, by site in the order of the dataset."""

dataset_sites = Table(
    "dataset_sites",
    metadata,
    Column("dataset_id", _Id, ForeignKey("datasets.dataset_id"), primary_key=True, autoincrement=False),
    Column("site", String(128), primary_key=True),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
)
"""How many files of a dataset, and how many bytes, are at a site."""

dataset_tasks = Table(
    "dataset_tasks",
    metadata,
    Column("dataset_id", _Id, ForeignKey("datasets.dataset_id"), primary_key=True, autoincrement=False),
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("spec_digest", String(80), nullable=False),
    Column("source", String(280), nullable=True),
)
"""Tasks that write a dataset, also those put away since; ``source`` is the dataset that the task reads."""
