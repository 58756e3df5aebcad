"""Tables of identity: who sees which task, browsers that have logged in, and who did what."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text

from hpcpanda.dispatcher.store.tables import metadata

_Id = BigInteger().with_variant(Integer, "sqlite")

task_teams = Table(
    "task_teams",
    metadata,
    Column("task_id", _Id, primary_key=True, autoincrement=False),
    Column("team", String(128), nullable=False),
    Index(None, "team", "task_id"),
)
"""The group whose members see a task beside its owner, also after it was put away."""

sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("teams", Text, nullable=False),
    Column("expires", Float, nullable=False),
    Index(None, "expires"),
)
"""Browsers that have logged in: SHA-256 of what they show, and what it allows, as JSON lists."""

logins = Table(
    "logins",
    metadata,
    Column("state", String(64), primary_key=True),
    Column("nonce", String(128), nullable=False),
    Column("verifier", String(128), nullable=False),
    Column("next", Text, nullable=False),
    Column("expires", Float, nullable=False),
    Index(None, "expires"),
)
"""Browsers that are at the provider now; a row is used once."""

audit = Table(
    "audit",
    metadata,
    Column("entry", _Id, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("who", String(160), nullable=False),
    Column("did", String(200), nullable=False),
    Column("target", Text, nullable=False),
    Column("address", String(64), nullable=False),
    Index(None, "who", "entry"),
    sqlite_autoincrement=True,
)
"""Who did what, when, from where. Rows are only ever added: triggers refuse everything else."""
