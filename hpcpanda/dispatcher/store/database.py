"""The database: its connections, and bringing its schema up to date.

Only this module knows which database it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hpcpanda.domain.errors import Unavailable

READERS = 4
"""Connections that read at the same time as one writes."""


class Database:
    """A SQLite file in WAL mode: one writer at a time, readers beside it.

    A finished write is on disk (``synchronous=FULL``): it survives a power cut.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        url = f"sqlite+aiosqlite:///{path}"
        self._writer = create_async_engine(url, pool_size=1, max_overflow=0)
        self._reader = create_async_engine(url, pool_size=READERS, max_overflow=0)
        _configure(self._writer, begin="BEGIN IMMEDIATE")
        _configure(self._reader, begin="BEGIN")
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may change rows; commits at the end, unless the block raises."""
        async with self._writing, self._writer.begin() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one consistent state and changes nothing."""
        async with self._reader.connect() as connection:
            yield connection

    async def migrate(self) -> None:
        """Bring the schema to the newest version; does nothing when it is.

        Raises:
            Unavailable: the file cannot be opened or written, or is no database.
        """
        try:
            async with self.write() as connection:
                await connection.run_sync(_upgrade)
        except DatabaseError as error:
            raise Unavailable(f"the database {self._path} cannot be used: {error.orig}") from error

    async def check(self) -> None:
        """Raise when the database does not answer."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "hpcpanda.dispatcher.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


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
