"""The unit of work: all that one use case reads and changes, in one transaction."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.accounts import Accounts
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.leases import Failures, Leases
from hpcpanda.dispatcher.store.ready import ReadyRanges
from hpcpanda.dispatcher.store.sites import Activity, Edges, OutputFiles
from hpcpanda.dispatcher.store.tokens import Tokens


class UnitOfWork:
    """One transaction, entered with ``async with``: what it changed is on disk when the block ends,
    and nothing of it stays when the block raises."""

    accounts: Accounts
    ready: ReadyRanges
    leases: Leases
    failures: Failures
    edges: Edges
    activity: Activity
    outputs: OutputFiles
    tokens: Tokens

    def __init__(self, transaction: AbstractAsyncContextManager[AsyncConnection]) -> None:
        self._transaction = transaction

    async def __aenter__(self) -> Self:
        connection = await self._transaction.__aenter__()
        self.accounts = Accounts(connection)
        self.ready = ReadyRanges(connection)
        self.leases = Leases(connection)
        self.failures = Failures(connection)
        self.edges = Edges(connection)
        self.activity = Activity(connection)
        self.outputs = OutputFiles(connection)
        self.tokens = Tokens(connection)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._transaction.__aexit__(kind, error, trace)


class Store:
    """Gives units of work over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def writing(self) -> UnitOfWork:
        """A unit of work that may change things; one at a time."""
        return UnitOfWork(self._database.write())

    def reading(self) -> UnitOfWork:
        """A unit of work that only reads, beside a writer."""
        return UnitOfWork(self._database.read())
