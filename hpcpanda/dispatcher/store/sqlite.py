"""The database of the embedded dispatcher: a SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from hpcpanda.dispatcher.store.database import upgrade
from hpcpanda.dispatcher.store.sqlite_driver import URL_SCHEME, Habits, InlineConnection
from hpcpanda.dispatcher.store.sqlite_groups import Writers
from hpcpanda.dispatcher.wire import NoWire, Wire
from hpcpanda.domain.errors import Unavailable

READERS = 4
"""Connections that read at the same time as one writes."""


class SqliteDatabase:
    """A SQLite file in WAL mode: one writer at a time, readers beside it.

    A finished write is on disk (``synchronous=FULL``): it survives a power cut. Those who wait for their turn to write
    share commits.
    """

    shared = False

    def __init__(self, path: Path) -> None:
        self._path = path
        threads = ThreadPoolExecutor(READERS + 1, thread_name_prefix="sqlite")
        habits = Habits()
        self._writer = _engine(path, threads, habits, immediate=True, connections=1)
        self._reader = _engine(path, threads, habits, immediate=False, connections=READERS)
        self._writers = Writers(self._writer, threads)

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
            async with self._writers.turn() as connection:
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
                raise self._unusable(error.orig) from error
            raise
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def _unusable(self, problem: BaseException | None) -> Unavailable:
        return Unavailable(f"the database {self._path} cannot be used: {problem}")


def _engine(
    path: Path, threads: Executor, habits: Habits, *, immediate: bool, connections: int
) -> AsyncEngine:
    opened = partial(InlineConnection.open, path, threads=threads, habits=habits, immediate=immediate)
    return create_async_engine(
        f"{URL_SCHEME}:///{path}",
        creator=opened,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=connections,
        max_overflow=0,
    )
