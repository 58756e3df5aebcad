"""What the heads of allocations say: their status files, read as they change, and which work is over by them."""

from __future__ import annotations

import asyncio
import time

import structlog

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.states import AllocationState
from hpcpanda_edge import accounts
from hpcpanda_edge.files import StatusReader
from hpcpanda_edge.present_runs import PartKey, PresentRuns
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import Statuses, pack_over, part_over

_HEARD = (AllocationState.QUEUED, AllocationState.RUNNING, AllocationState.ENDED)

_log = structlog.get_logger("hpcpanda.edge")


class Heads:
    """Listens to the heads of allocations."""

    def __init__(self, store: Store, steps: Steps, spool: Spool, runs: PresentRuns) -> None:
        self._store = store
        self._steps = steps
        self._runs = runs
        self._reader = StatusReader(spool)

    async def read(self) -> None:
        """Enter what heads have newly said."""
        ids = [r.allocation_id for r in self._store.allocations.values() if r.state in _HEARD]
        if not ids:
            return
        known = set(self._reader.troubles)
        new = await asyncio.to_thread(self._reader.read, ids)
        for allocation_id in self._reader.troubles.keys() - known:
            _log.error("status-not-understood", error=self._reader.troubles[allocation_id])
        if not new:
            return
        with self._store.transaction():
            for status in new:
                self._hear(status)

    def _hear(self, status: AllocationStatus) -> None:
        record = self._store.allocations[status.allocation_id]
        if not record.hears(status):
            return
        if status.life > record.life:
            self._runs.forget(status.allocation_id)
        self._runs.statuses[status.allocation_id] = status
        self._steps.heard(status, time.time())

    def parts_over(self) -> set[PartKey]:
        """Tasks that packs are done with: the allocation or the pack has ended, or its head says so; twice, where
        events depend on it."""
        over: set[PartKey] = set()
        for record in self._store.allocations.values():
            for pack in record.packs:
                for part in pack.open_parts:
                    if self._is_over(record, pack, part):
                        over.add((record.allocation_id, pack.pack_id, part.task_id))
        return over

    def _is_over(self, record: AllocationRecord, pack: PackRecord, part: PartRecord) -> bool:
        if record.state is AllocationState.ENDED:
            return True
        key = (record.allocation_id, pack.pack_id, part.task_id)
        status = self._runs.statuses.get(record.allocation_id)
        if status is None or not (pack_over(pack, status) or part_over(pack, part, status)):
            self._runs.over.pop(key, None)
            return False
        first = self._runs.over.setdefault(key, status.written)
        return first < status.written or not self._holds_events(record, pack, part)

    def _holds_events(self, record: AllocationRecord, pack: PackRecord, part: PartRecord) -> bool:
        holder = record.holder(pack.pack_id)
        return any(v.outstanding(holder) for v in accounts.leases_of(self._store, part.task_id))


def packs_ended(store: Store, statuses: Statuses, settling: set[PartKey]) -> list[tuple[str, str]]:
    """Allocation and id of packs that have ended, of which every part is settled, or is among those that are now."""
    return [
        (record.allocation_id, pack.pack_id)
        for record in store.allocations.values()
        for pack in record.packs
        if not pack.settled
        and all((record.allocation_id, pack.pack_id, p.task_id) in settling for p in pack.open_parts)
        and (record.state is AllocationState.ENDED or pack_over(pack, statuses.get(record.allocation_id)))
    ]
