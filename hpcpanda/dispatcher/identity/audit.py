"""The audit log: what users do is written down in the same transaction as it is done.

What edges do all day (leases, syncs) is not: the ledger tells of it, and rows would grow with requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import structlog

from hpcpanda.dispatcher.clock import Clock
from hpcpanda.dispatcher.reports.news import Told
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.unit import Store, UnitOfWork

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Who is doing what, from where."""

    who: str
    did: str
    address: str


class AuditedUnit(UnitOfWork):
    """A transaction that ends with an entry in the audit log; without the entry there is no change either."""

    deed: Deed
    clock: Clock

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if kind is not None:
            return await super().__aexit__(kind, error, trace)
        deed, target = self.deed, self.target or ""
        try:
            await self.audit.add(
                at=self.clock(), who=deed.who, did=deed.did, target=target, address=deed.address
            )
        except BaseException as problem:
            await super().__aexit__(type(problem), problem, problem.__traceback__)
            raise
        ended = await super().__aexit__(kind, error, trace)
        _log.info("audit", who=deed.who, did=deed.did, target=target, address=deed.address)
        return ended


class AuditedStore(Store):
    """A store whose changes are written down, as what ``deed`` says at the time; not at all when it says nothing."""

    def __init__(
        self, database: Database, *, deed: Callable[[], Deed | None], clock: Clock, told: Told
    ) -> None:
        super().__init__(database, told=told)
        self._deed = deed
        self._clock = clock

    def writing(self) -> UnitOfWork:
        """A unit of work that may change things."""
        deed = self._deed()
        if deed is None:
            return super().writing()
        unit = AuditedUnit(self._database.write(), holds_rows=self._database.shared, told=self.told)
        unit.deed = deed
        unit.clock = self._clock
        return unit
