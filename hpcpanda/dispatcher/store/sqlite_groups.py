"""Writers of a SQLite file, one at a time in the order in which they came, and commits that they share.

A commit waits for the disk. Those who wait for their turn meanwhile would each wait for the disk once more; instead
they do their work one after the other in one transaction, each in a savepoint of its own, and one commit makes all of
it durable. Nobody is told of success before.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hpcpanda.dispatcher.store.sqlite_driver import InlineConnection

GATHER_SECONDS = 0.01
"""So long, or twice as long as the last commit took if that is longer, others may join a transaction that has begun: the first
of them does not wait much longer than for a commit of its own."""


class _Group:
    """One transaction of the file, and those who share it."""

    def __init__(self, connection: AsyncConnection, driver: InlineConnection) -> None:
        self.connection = connection
        self._began = time.monotonic()
        self.ended: asyncio.Future[sqlite3.Error | None] = asyncio.get_running_loop().create_future()
        """What went wrong with the commit; nothing."""
        self._driver = driver
        self._changes = driver.total_changes
        self._kept = 0

    @property
    def lost(self) -> bool:
        """Whether SQLite has undone all of it by itself, as it does when the disk is full."""
        return not self._driver.in_transaction

    @property
    def wrote(self) -> bool:
        """Whether a commit has something to bring to the disk."""
        return self._kept > 0 and self._driver.total_changes != self._changes

    def enter(self) -> None:
        """Begin the part of one writer. The first needs no savepoint: it can undo all there is."""
        if self._kept:
            self._driver.execute("SAVEPOINT writer")

    def keep(self) -> None:
        """The part of this writer is done."""
        if self._kept and not self.lost:
            self._driver.execute("RELEASE writer")
        self._kept += 1

    def undo(self) -> None:
        """Nothing of this writer's part stays."""
        if self.lost:
            return
        if self._kept:
            self._driver.execute("ROLLBACK TO writer")
            self._driver.execute("RELEASE writer")
        else:
            self._driver.rollback()

    def open_for(self, seconds: float) -> bool:
        """Whether somebody may join who comes at most so long after the beginning."""
        return self._kept > 0 and not self.lost and time.monotonic() - self._began < seconds

    def commit(self) -> sqlite3.Error | None:
        """Bring everything to the disk; gives what went wrong. May be called in a thread."""
        try:
            if self.lost and self._kept:
                return sqlite3.OperationalError("the transaction was undone because of another error")
            self._driver.commit()
        except sqlite3.Error as problem:
            return problem
        return None

    def close(self) -> None:
        """Give the connection back; what is not committed is undone."""
        assert self.connection.sync_connection is not None
        self.connection.sync_connection.close()  # nothing of it waits: the driver works in this thread


class Writers:
    """Gives turns on the one connection that writes.

    Args:
        engine: connects with :class:`InlineConnection`, to one file.
        threads: wait for the disk.
    """

    def __init__(self, engine: AsyncEngine, threads: Executor) -> None:
        self._engine = engine
        self._threads = threads
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._group: _Group | None = None
        self._last_commit = 0.0
        """Seconds."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[AsyncConnection]:
        """A part of a transaction: all of it is on disk when this ends, nothing of it stays when the block raises.

        Raises:
            sqlite3.Error: it could not be committed.
        """
        group = await self._enter()
        try:
            try:
                yield group.connection
                group.keep()
            except BaseException:
                group.undo()
                raise
        finally:
            self._pass_on()
        problem = await asyncio.shield(group.ended)
        if problem is not None:
            raise problem

    async def _enter(self) -> _Group:
        await self._take()
        try:
            if self._group is None:
                self._group = await self._begin()
            self._group.enter()
        except BaseException:
            self._pass_on()
            raise
        return self._group

    async def _take(self) -> None:
        """Wait until it is this one's turn."""
        if not self._taken:
            self._taken = True
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(mine)
            else:  # it was given the turn in the same moment
                self._pass_on()
            raise

    async def _begin(self) -> _Group:
        connection = await self._engine.connect()
        try:
            await connection.begin()
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, InlineConnection)
            return _Group(connection, driver)
        except BaseException:
            await connection.close()
            raise

    def _pass_on(self) -> None:
        """A turn has ended: the next one joins the transaction, or the transaction ends first."""
        group = self._group
        somebody_waits = any(not turn.done() for turn in self._waiting)
        joinable = somebody_waits and group and group.open_for(max(GATHER_SECONDS, 2 * self._last_commit))
        if group is None or joinable:
            self._hand_over()
        else:
            self._group = None
            self._commit(group)

    def _hand_over(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False

    def _commit(self, group: _Group) -> None:
        """End a transaction; whoever is next waits for that."""
        if not group.wrote:
            self._ended(group, group.commit())
            return

        def ended(work: asyncio.Future[sqlite3.Error | None]) -> None:
            self._last_commit = time.monotonic() - began
            self._ended(group, work.result())

        began = time.monotonic()
        asyncio.get_running_loop().run_in_executor(self._threads, group.commit).add_done_callback(ended)

    def _ended(self, group: _Group, problem: sqlite3.Error | None) -> None:
        try:
            group.close()
        finally:
            group.ended.set_result(problem)
            self._hand_over()
