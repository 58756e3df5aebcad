"""Insert rows, or change those that are there: both databases can, each in its own dialect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Executable, Select, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


async def upsert(
    connection: AsyncConnection,
    table: Table,
    rows: Collection[Mapping[str, Any]],
    *,
    changes: Sequence[str] = (),
    adds: Sequence[str] = (),
) -> None:
    """Insert rows; of one whose key is there, put ``changes`` in place of what was and add ``adds`` to it.

    Rows are written in the order of their keys, so that two transactions that do the same never wait for each other.
    """
    if not rows:
        return
    key = [column.name for column in table.primary_key]
    statement = _upsert(table, connection.dialect.name, changes=tuple(changes), adds=tuple(adds))
    await connection.execute(statement, sorted(rows, key=lambda row: [row[name] for name in key]))


async def upsert_found(
    connection: AsyncConnection, table: Table, found: Select[Any], *, changes: Sequence[str]
) -> None:
    """Insert the rows that a query finds, whose columns are the table's in their order; of one whose key is there, put
    ``changes`` in place of what was. The query has a condition: SQLite could not tell the words apart else."""
    insert = _insert(connection.dialect.name, table)
    insert = insert.from_select([column.name for column in table.c], found)
    statement = insert.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key],
        set_={name: insert.excluded[name] for name in changes},
    )
    await connection.execute(statement)


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    made: postgresql.Insert | sqlite.Insert
    made = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    return made


@cache
def _upsert(table: Table, dialect: str, *, changes: tuple[str, ...], adds: tuple[str, ...]) -> Executable:
    key = [column.name for column in table.primary_key]
    insert = _insert(dialect, table)
    new: dict[str, ColumnElement[Any]] = {name: insert.excluded[name] for name in changes}
    new |= {name: table.c[name] + insert.excluded[name] for name in adds}
    statement: Executable = insert.on_conflict_do_update(index_elements=key, set_=new)
    return statement
