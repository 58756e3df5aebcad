"""The database of the embedded dispatcher: a SQLite file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hpcpanda.dispatcher.store.database import upgrade
from hpcpanda.dispatcher.wire import NoWire, Wire
from hpcpanda.domain.errors import Unavailable

READERS = 4
"""Connections that read at the same time as one writes."""


class SqliteDatabase:
    """A SQLite file in WAL mode: one writer at a time, readers beside it.

    A finished write is on disk (``synchronous=FULL``): it survives a power cut.
    """

    shared = False

    def __init__(self, path: Path) -> None:
        self._path = path
        url = f"sqlite+aiosqlite:///{path}"
        self._writer = create_async_engine(url, pool_size=1, max_overflow=0)
        self._reader = create_async_engine(url, pool_size=READERS, max_overflow=0)
        _configure(self._writer, begin="BEGIN IMMEDIATE")
        _configure(self._reader, begin="BEGIN")
        self._writing = asyncio.Lock()

    @property
    def name(self) -> str:
        """The file."""
        return str(self._path)

    @property
    def engine(self) -> AsyncEngine:
        """The connection that writes."""
        return self._writer

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may change rows; commits at the end, unless the block raises."""
        with self._told():
            async with self._writing, self._writer.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one consistent state and changes nothing."""
        with self._told():
            async with self._reader.connect() as connection:
                yield connection

    async def migrate(self) -> None:
        """Bring the schema to the newest version; does nothing when it is.

        Raises:
            Unavailable: the file cannot be opened or written, is no database, or is of a newer hpcpanda.
        """
        async with self.write() as connection:
            await connection.run_sync(upgrade)

    async def time(self) -> float:
        """Unix seconds on this machine's clock."""
        return time.time()

    def wire(self) -> Wire:
        """To nobody."""
        return NoWire()

    async def check(self) -> None:
        """Raise when the database does not answer."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A full disk, a folder that is gone or a file held by others is told as such."""
        try:
            yield
        except DatabaseError as error:
            if isinstance(error, OperationalError) or type(error) is DatabaseError:
                raise self._unusable(error) from error
            raise

    def _unusable(self, error: DatabaseError) -> Unavailable:
        return Unavailable(f"the database {self._path} cannot be used: {error.orig}")


def _configure(engine: AsyncEngine, *, begin: str) -> None:
    """Let transactions begin when we say so, not when the driver thinks fit."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=20000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
