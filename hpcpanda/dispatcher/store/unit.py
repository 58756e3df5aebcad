"""The unit of work: all that one use case reads and changes, in one transaction."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.reports.news import News, Told, tell_nobody
from hpcpanda.dispatcher.store.accounting import Accounting
from hpcpanda.dispatcher.store.accounting_changes import Changes
from hpcpanda.dispatcher.store.accounts import Accounts
from hpcpanda.dispatcher.store.archive import Archive
from hpcpanda.dispatcher.store.catalogue import Datasets
from hpcpanda.dispatcher.store.catalogue_windows import DatasetWindows
from hpcpanda.dispatcher.store.chains import Chains
from hpcpanda.dispatcher.store.control import Fences, SiteFaults, TriedAgain
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.generation import Generation
from hpcpanda.dispatcher.store.identity import AuditLog, Sessions, TaskTeams
from hpcpanda.dispatcher.store.lanes import Lanes
from hpcpanda.dispatcher.store.leases import Failures, Leases
from hpcpanda.dispatcher.store.pieces import JobPieces
from hpcpanda.dispatcher.store.placing import BrokerNotes, Links, Sites, TaskData
from hpcpanda.dispatcher.store.pulse import Pulses
from hpcpanda.dispatcher.store.ready import ReadyRanges
from hpcpanda.dispatcher.store.reasons import Reasons
from hpcpanda.dispatcher.store.sites import Activity, Edges, OutputFiles
from hpcpanda.dispatcher.store.tokens import Tokens


class UnitOfWork:
    """One transaction, entered with ``async with``: what it changed is on disk when the block ends,
    and nothing of it stays when the block raises.

    Other transactions may run beside it. Whoever changes anything of a task holds the task's row first, by
    ``accounts.get``, ``some``, ``claim`` or ``free_of``, and reads the rest afterwards: what was read before may have
    changed. Rows are held in one order, an edge's before tasks' and tasks by number, so that nobody waits for ever.
    """

    accounts: Accounts
    ready: ReadyRanges
    leases: Leases
    failures: Failures
    edges: Edges
    activity: Activity
    reasons: Reasons
    outputs: OutputFiles
    tokens: Tokens
    sessions: Sessions
    teams: TaskTeams
    audit: AuditLog
    lanes: Lanes
    sites: Sites
    links: Links
    notes: BrokerNotes
    data: TaskData
    datasets: Datasets
    windows: DatasetWindows
    pulses: Pulses
    archive: Archive
    generation: Generation
    pieces: JobPieces
    chains: Chains
    fences: Fences
    tried_again: TriedAgain
    faults: SiteFaults
    accounting: Accounting
    changes: Changes

    target: str | None = None
    """What it is done to, for the audit log, as far as the request does not say it."""

    def __init__(
        self,
        transaction: AbstractAsyncContextManager[AsyncConnection],
        *,
        holds_rows: bool,
        told: Told = tell_nobody,
    ) -> None:
        self._transaction = transaction
        self._holds_rows = holds_rows
        self._told = told
        self.news = News()

    async def __aenter__(self) -> Self:
        connection = await self._transaction.__aenter__()
        self.accounts = Accounts(connection, holds_rows=self._holds_rows, written=self.news.tasks)
        self.ready = ReadyRanges(connection)
        self.leases = Leases(connection)
        self.failures = Failures(connection)
        self.edges = Edges(connection, holds_rows=self._holds_rows)
        self.activity = Activity(connection)
        self.reasons = Reasons(connection)
        self.outputs = OutputFiles(connection)
        self.tokens = Tokens(connection)
        self.sessions = Sessions(connection)
        self.teams = TaskTeams(connection)
        self.audit = AuditLog(connection)
        self.lanes = Lanes(connection)
        self.sites = Sites(connection)
        self.links = Links(connection)
        self.notes = BrokerNotes(connection)
        self.data = TaskData(connection)
        self.datasets = Datasets(connection, holds_rows=self._holds_rows)
        self.windows = DatasetWindows(connection)
        self.pulses = Pulses(connection)
        self.archive = Archive(connection)
        self.generation = Generation(connection)
        self.pieces = JobPieces(connection)
        self.chains = Chains(connection)
        self.fences = Fences(connection)
        self.tried_again = TriedAgain(connection)
        self.faults = SiteFaults(connection)
        self.accounting = Accounting(connection)
        self.changes = Changes(connection)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        ended = await self._transaction.__aexit__(kind, error, trace)
        if kind is None:
            self._told(self.news)
        return ended


class Store:
    """Gives units of work over one database."""

    def __init__(self, database: Database, *, told: Told = tell_nobody) -> None:
        self._database = database
        self.told = told

    def writing(self) -> UnitOfWork:
        """A unit of work that may change things."""
        return UnitOfWork(self._database.write(), holds_rows=self._database.shared, told=self.told)

    def reading(self) -> UnitOfWork:
        """A unit of work that only reads, beside writers."""
        return UnitOfWork(self._database.read(), holds_rows=False)
