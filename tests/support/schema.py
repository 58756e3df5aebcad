"""Compare what migrations have made with the tables in the code."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from hpcpanda.dispatcher.store.tables import metadata

DESCENDING = "ix_tasks_lane_priority"
"""An index in descending order: Alembic cannot compare it on SQLite, it is compared here by its statement."""


def differences(connection: Connection) -> list[Any]:
    """What is not as the code says; nothing when all is."""

    def compared(_object: object, name: str | None, *_: object) -> bool:
        return name != DESCENDING

    context = MigrationContext.configure(connection, opts={"include_object": compared})
    found = list(compare_metadata(context, metadata))
    if connection.dialect.name == "sqlite":
        query = text("SELECT sql FROM sqlite_master WHERE name = :name")
        made = connection.execute(query, {"name": DESCENDING}).scalar_one()
        if "(lane_id, priority DESC, task_id) WHERE ready > 0" not in made:
            found.append(made)
    return found
