"""SQLite for asyncio without a hop to another thread for every statement.

A statement of the hot path takes 34 µs, SQLAlchemy's part included; handed to a thread, it took 189 µs of processor time
and, whenever the loop was busy, waited for it several times, with the one right to write held meanwhile. So statements
run where they are asked for; those that have been seen to take long, and those with many rows, run in a thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteExecutionContext
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util.concurrency import await_, in_greenlet

URL_SCHEME = "sqlite+inline"
"""Begins the address of an engine that uses this driver."""
LONG_CPU_SECONDS = 0.01
LONG_SECONDS = 0.1
"""A statement that has used the processor for longer, or has waited for longer, runs in a thread the next times. On a busy
machine the processor may be away for much longer than a short statement takes: a thread would make that worse."""
REMEMBERED = 100
"""So often; then it is tried in the loop again, for it may have been the machine's fault."""
MANY_ROWS = 500
"""Rows of a statement that runs in a thread in any case."""
BUSY_SECONDS = 20.0
"""How long another process may hold the file before a transaction is refused."""
_MOST = 1000
"""Statements remembered at the same time."""

Result = TypeVar("Result")


class Habits:
    """Which statements take long."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def is_long(self, statement: str) -> bool:
        """Whether to run it in a thread this time."""
        left = self._left.get(statement)
        if left is None:
            return False
        if left == 0:
            del self._left[statement]
            return False
        self._left[statement] = left - 1
        return True

    def took(self, statement: str, *, cpu_s: float, wall_s: float) -> None:
        """Learn how long it took in the loop."""
        if cpu_s > LONG_CPU_SECONDS or wall_s > LONG_SECONDS:
            if len(self._left) >= _MOST:
                self._left.clear()
            self._left[statement] = REMEMBERED


class InlineConnection(sqlite3.Connection):
    """A connection whose statements run in the thread of the loop as long as they are short.

    While one of them runs in a thread nobody else uses the connection: whoever is cancelled waits for its end.
    """

    habits: Habits
    threads: Executor
    immediate: bool

    @classmethod
    def open(cls, path: Path, *, threads: Executor, habits: Habits, immediate: bool) -> Self:
        """Open a database in WAL mode, whose commits are on disk when they return.

        Args:
            path: the file; made when there is none.
            threads: run what takes long.
            habits: which statements do.
            immediate: transactions begin with the right to write, and wait for it without holding up the loop.
        """
        connection = sqlite3.connect(
            path, BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=cls
        )
        connection.habits, connection.threads, connection.immediate = habits, threads, immediate
        busy = 0 if immediate else int(BUSY_SECONDS * 1000)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={busy}"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def begin(self) -> None:
        """Begin a transaction.

        Raises:
            sqlite3.OperationalError: another process has held the file for too long.
        """
        if not self.immediate:
            self.execute("BEGIN")
            return
        try:
            self.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            self.elsewhere(self._begin_patiently)

    def elsewhere(self, act: Callable[[], Result]) -> Result:
        """Do something in a thread, while the loop goes on."""
        return await_(self._finish(act)) if in_greenlet() else act()

    async def _finish(self, act: Callable[[], Result]) -> Result:
        work = asyncio.get_running_loop().run_in_executor(self.threads, act)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                try:
                    await asyncio.wait([work])
                except asyncio.CancelledError:
                    continue
            if not work.cancelled():
                work.exception()
            raise

    def _begin_patiently(self) -> None:
        self.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        try:
            self.execute("BEGIN IMMEDIATE")
        finally:
            self.execute("PRAGMA busy_timeout=0")


class _Cursor(sqlite3.Cursor):
    """Runs one statement, here or in a thread."""

    connection: InlineConnection

    def execute(self, statement: str, parameters: Any = (), /) -> Self:  # noqa: ANN401 - sqlite3's
        """Run a statement."""

        def act() -> None:
            sqlite3.Cursor.execute(self, statement, parameters)
            self._take_rows()

        self._run(act, statement, is_long=self.connection.habits.is_long(statement))
        return self

    def executemany(self, statement: str, rows: Iterable[Any], /) -> Self:
        """Run a statement once for each row."""
        rows = rows if isinstance(rows, list | tuple) else list(rows)
        is_long = len(rows) >= MANY_ROWS or self.connection.habits.is_long(statement)
        self._run(lambda: sqlite3.Cursor.executemany(self, statement, rows), statement, is_long=is_long)
        return self

    def _take_rows(self) -> None:
        """What is done with the rows of a query at once."""

    def _run(self, act: Callable[[], object], statement: str, *, is_long: bool) -> None:
        if is_long:
            self.connection.elsewhere(act)
            return
        if in_greenlet():
            await_(_nothing())  # SQLAlchemy insists that something is awaited; this lets nobody in between
        began, cpu_began = time.perf_counter(), time.thread_time()
        act()
        cpu_s, wall_s = time.thread_time() - cpu_began, time.perf_counter() - began
        self.connection.habits.took(statement, cpu_s=cpu_s, wall_s=wall_s)


class InlineCursor(_Cursor):
    """Has all rows of a query when it was run: most of the work of a query is to find them."""

    _rows: deque[Any]

    def fetchone(self) -> Any:  # noqa: ANN401 - a row
        """The next row; None behind the last."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        """The next rows."""
        return [self._rows.popleft() for _ in range(min(size or 1, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def _async_soft_close(self) -> None:
        """Called by SQLAlchemy when it hands a result out: nothing of the query is open any more."""

    def _take_rows(self) -> None:
        self._rows = deque(sqlite3.Cursor.fetchall(self) if self.description else ())


class StreamingCursor(_Cursor):
    """Makes rows as they are fetched: what is read may be larger than memory."""


async def _nothing() -> None:
    return


class _Context(SQLiteExecutionContext):
    def create_default_cursor(self) -> Any:  # noqa: ANN401 - SQLAlchemy's
        return self._dbapi_connection.cursor(InlineCursor)

    def create_server_side_cursor(self) -> Any:  # noqa: ANN401 - SQLAlchemy's
        return self._dbapi_connection.cursor(StreamingCursor)


class InlineDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's dialect for :class:`InlineConnection`, for engines of asyncio."""

    driver = "inline"
    supports_statement_cache = True
    supports_server_side_cursors = True
    is_async = True
    has_terminate = True
    execution_ctx_cls = _Context

    def do_begin(self, dbapi_connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        """Begin when SQLAlchemy says so, not when the driver thinks fit."""
        dbapi_connection.driver_connection.begin()

    def do_terminate(self, dbapi_connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        """Close a connection that nobody has given back."""
        dbapi_connection.close()


registry.register("sqlite.inline", __name__, InlineDialect.__name__)
