"""Backups: all rows of a dispatcher's database in one file, which either kind of database takes back.

The file is gzip (RFC 1952) over lines of JSON: a head, then for every table a line that names its columns and a line for
each of its rows, then an end that counts them. It is of one moment, also while dispatchers work, and of one version of
the schema; restored, it is brought to the newest one.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Connection, MetaData, Table, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.database import Database, migrate_to, schema_version, upgrade
from hpcpanda.domain.errors import Conflict, CorruptData, InvalidValue, Unavailable

FORMAT = 1
BATCH = 1000
"""Rows read or written at a time."""
LEAP = 1_000_000
"""Numbers left out after a restore: those of leases and tasks that were given since the backup are never given again."""
_VERSION_TABLE = "alembic_version"
_LIVED_IN = ("tasks", "archived_tasks", "edges", "tokens")
"""A database with rows in one of these has been used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFile:
    """What a backup holds."""

    path: str
    schema: str
    rows: int
    bytes: int


async def write_backup(database: Database, path: Path) -> BackupFile:
    """Write all rows, as of one moment, to a file that appears when it is whole, readable for its owner only.

    Raises:
        Conflict: the file is there already.
        Unavailable: the database has no schema, or the file cannot be written.
    """
    _require_new(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as raw:
                with gzip.open(raw, "wt", encoding="utf-8", compresslevel=6) as file:
                    schema, rows = await _dump(database, file)
                raw.flush()
                os.fsync(raw.fileno())
                size = raw.tell()
            os.link(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink()
    except FileExistsError:
        raise Conflict(f"{path} is there already; name a file that is not") from None
    except OSError as problem:
        raise Unavailable(f"{path} cannot be written: {problem.strerror}") from problem
    return BackupFile(path=str(path), schema=schema, rows=rows, bytes=size)


async def restore_backup(database: Database, path: Path) -> BackupFile:
    """Fill an empty database from a backup, whole or not at all.

    Numbers of leases and tasks leap, so that one which was given after the backup never means something else.

    Raises:
        Conflict: the database is not empty.
        CorruptData: the file is no backup, or is damaged.
        InvalidValue: it is of a newer hpcpanda.
        Unavailable: the file cannot be read, or the database cannot be used.
    """
    count_rows(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = _lines(file, path)
            head = next(lines)
            async with database.write() as connection:
                await _make_empty(connection, database.name, head["schema"])
                rows = await _fill(connection, lines, head)
                await connection.run_sync(upgrade)
    except OSError as problem:
        raise Unavailable(f"{path} cannot be read: {problem.strerror}") from problem
    return BackupFile(path=str(path), schema=head["schema"], rows=rows, bytes=_size(path))


def count_rows(path: Path) -> int:
    """Read a backup through; gives how many rows it has.

    Raises:
        CorruptData: it is no backup, or is damaged, or ends early.
        InvalidValue: it is of a newer hpcpanda.
        Unavailable: it cannot be read.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = _lines(file, path)
            next(lines)
            rows = sum(isinstance(line, list) for line in lines)
    except (gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as problem:
        raise CorruptData(f"{path} is no backup, or is damaged: {problem}") from problem
    except OSError as problem:
        raise Unavailable(f"{path} cannot be read: {problem.strerror}") from problem
    return rows


async def _dump(database: Database, file: TextIO) -> tuple[str, int]:
    async with database.read() as connection:
        versions = await connection.run_sync(schema_version)
        if len(versions) != 1:
            raise Unavailable(f"{database.name} has no schema; is it a dispatcher's?")
        metadata = await connection.run_sync(_reflect)
        head = {
            "hpcpanda-backup": FORMAT,
            "schema": versions[0],
            "numbers": await _numbers(connection, metadata),
        }
        _write(file, head)
        rows = 0
        for table in _tables(metadata):
            _write(file, {"table": table.name, "columns": [column.name for column in table.columns]})
            async for row in _rows(connection, table):
                _write(file, [_plain(value) for value in row])
                rows += 1
        _write(file, {"end": rows})
    return versions[0], rows


async def _rows(connection: AsyncConnection, table: Table) -> AsyncIterator[tuple[Any, ...]]:
    result = await connection.stream(select(table).execution_options(yield_per=BATCH))
    async for row in result:
        yield tuple(row)


async def _make_empty(connection: AsyncConnection, name: str, schema: str) -> None:
    """Leave nothing but the schema of the backup, where there was nothing else."""
    metadata = await connection.run_sync(_reflect)
    for table in (metadata.tables[name] for name in _LIVED_IN if name in metadata.tables):
        if (await connection.execute(select(table).limit(1))).first() is not None:
            raise Conflict(
                f"{name} is not empty: there are rows in {table.name}; restore into an empty database, "
                "with no dispatcher running over it"
            )
    if await connection.run_sync(schema_version) != (schema,):
        await connection.run_sync(lambda c: migrate_to(c, schema, afresh=True))
    metadata = await connection.run_sync(_reflect)
    for table in reversed(_tables(metadata)):  # rows that the schema brings along are in the backup, too
        if (await connection.execute(select(table).limit(1))).first() is not None:
            await connection.execute(delete(table))


async def _fill(connection: AsyncConnection, lines: Iterator[Any], head: dict[str, Any]) -> int:
    metadata = await connection.run_sync(_reflect)
    table: Table | None = None
    columns: list[str] = []
    waiting: list[dict[str, Any]] = []
    rows = 0

    async def flush() -> None:
        if waiting:
            assert table is not None, "a row has a table"
            await connection.execute(insert(table), waiting)
            waiting.clear()

    for line in lines:
        if isinstance(line, list):
            waiting.append(dict(zip(columns, map(_value, line), strict=True)))
            rows += 1
            if len(waiting) >= BATCH:
                await flush()
        elif "table" in line:
            await flush()
            table, columns = metadata.tables.get(line["table"]), line["columns"]
            if table is None or set(columns) - set(table.columns.keys()):
                raise CorruptData(f"the backup has rows of {line['table']}, which its schema does not have")
    await flush()
    tasks = metadata.tables["tasks"]
    await connection.execute(update(tasks).values(next_epoch=tasks.c.next_epoch + LEAP))
    await _set_numbers(connection, metadata, head["numbers"])
    return rows


async def _numbers(connection: AsyncConnection, metadata: MetaData) -> dict[str, int]:
    """The last number given in each table that the database numbers."""
    found: dict[str, int] = {}
    for table in _tables(metadata):
        sequence = await _sequence(connection, table)
        if sequence is None:
            continue
        if connection.dialect.name == "postgresql":
            query = text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608 - a name that the server gave
        else:
            query = text("SELECT seq FROM sqlite_sequence WHERE name = :name").bindparams(name=table.name)
        found[table.name] = int((await connection.execute(query)).scalar() or 0)
    return found


async def _set_numbers(connection: AsyncConnection, metadata: MetaData, numbers: dict[str, int]) -> None:
    for table in _tables(metadata):
        sequence = await _sequence(connection, table)
        if sequence is None:
            continue
        (column,) = table.primary_key.columns
        highest = (await connection.execute(select(func.max(column)))).scalar() or 0
        last = max(highest, numbers.get(table.name, 0)) + LEAP
        if connection.dialect.name == "postgresql":
            await connection.execute(
                text("SELECT setval(:sequence, :last)"), {"sequence": sequence, "last": last}
            )
        else:
            await connection.execute(
                text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name}
            )
            statement = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)")
            await connection.execute(statement, {"name": table.name, "last": last})


async def _sequence(connection: AsyncConnection, table: Table) -> str | None:
    """What numbers the rows of a table, if the database does and never gives a number twice."""
    key = list(table.primary_key.columns)
    if len(key) != 1:
        return None
    if connection.dialect.name == "postgresql":
        query = text("SELECT pg_get_serial_sequence(:table, :column)")
        return (await connection.execute(query, {"table": table.name, "column": key[0].name})).scalar()
    query = text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name")
    made = (await connection.execute(query, {"name": table.name})).scalar_one()
    return table.name if "AUTOINCREMENT" in made.upper() else None


def _lines(file: TextIO, path: Path) -> Iterator[Any]:
    """The parts of a backup, checked for being one and being whole."""
    rows, ended = 0, False
    for number, line in enumerate(file):
        try:
            part = json.loads(line)
        except ValueError as problem:
            raise CorruptData(
                f"{path} is no backup, or is damaged: line {number + 1} is not JSON"
            ) from problem
        if number == 0:
            if not isinstance(part, dict) or "hpcpanda-backup" not in part:
                raise CorruptData(f"{path} is no backup of a dispatcher")
            if part["hpcpanda-backup"] != FORMAT:
                raise InvalidValue(
                    str(path),
                    f"is a backup of form {part['hpcpanda-backup']}; this hpcpanda reads form {FORMAT}",
                )
        rows += isinstance(part, list)
        if isinstance(part, dict) and "end" in part:
            if part["end"] != rows:
                raise CorruptData(f"{path} has {rows} rows, and says that it has {part['end']}")
            ended = True
        yield part
    if not ended:
        raise CorruptData(f"{path} is no backup, or ends early")


def _reflect(connection: Connection) -> MetaData:
    metadata = MetaData()
    metadata.reflect(connection)
    return metadata


def _tables(metadata: MetaData) -> list[Table]:
    """In an order in which rows refer only to rows that are there."""
    hidden = {_VERSION_TABLE, "sqlite_sequence"}
    return [table for table in metadata.sorted_tables if table.name not in hidden]


def _write(file: TextIO, part: object) -> None:
    file.write(json.dumps(part, separators=(",", ":"), ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a column holds
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _value(plain: Any) -> Any:  # noqa: ANN401 - whatever a column holds
    return base64.b64decode(plain["bytes"]) if isinstance(plain, dict) else plain


def _require_new(path: Path) -> None:
    if path.exists():
        raise Conflict(f"{path} is there already; name a file that is not")


def _size(path: Path) -> int:
    return path.stat().st_size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
