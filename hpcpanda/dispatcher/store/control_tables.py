"""Tables of failures and of what is done about them. Rows grow with failing events and with sites, never with events."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, String, Table, Text

from hpcpanda.dispatcher.store.tables import metadata

_Id = BigInteger().with_variant(Integer, "sqlite")

tried_again = Table(
    "tried_again",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("event", BigInteger, primary_key=True, autoincrement=False),
    Column("history", Text, nullable=False),
)
"""Events that have failed and were given another chance; ``history``, every failure of theirs, is JSON."""

fences = Table(
    "fences",
    metadata,
    Column("task_id", _Id, ForeignKey("tasks.task_id"), primary_key=True, autoincrement=False),
    Column("edge", String(128), primary_key=True),
    Column("first_epoch", BigInteger, nullable=False),
    Column("until", Float, nullable=False),
    Column("why", Text, nullable=False),
)
"""Sites that are given nothing of a task ``until`` then, Unix seconds, and ``why``, as JSON. Nothing that such a site
has under an epoch below ``first_epoch`` is merged."""
