"""Allocations as the batch system sees them: ask it, enter what it says, and end what does not end by itself."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Final

import structlog

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState
from hpcpanda_edge.ports import JobState, SchedulerPort, Submitted
from hpcpanda_edge.present_runs import PresentRuns
from hpcpanda_edge.records import AllocationRecord
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.submitting import in_thread

_OVERDUE_S: Final = 60.0
"""An allocation that is so much over its walltime and twice its grace time is cancelled."""

_LIVE = (AllocationState.QUEUED, AllocationState.RUNNING)

_log = structlog.get_logger("hpcpanda.edge")


class BatchWatch:
    """Asks the batch system about all live allocations, every ``scheduler.poll_seconds``."""

    def __init__(
        self,
        store: Store,
        steps: Steps,
        spool: Spool,
        site: Site,
        scheduler: SchedulerPort,
        runs: PresentRuns,
    ) -> None:
        self._store = store
        self._steps = steps
        self._spool = spool
        self._site = site
        self._scheduler = scheduler
        self._runs = runs
        self._asked = 0.0

    async def look(self) -> None:
        """Ask, if it is time, and enter the answer."""
        if time.monotonic() - self._asked < self._site.scheduler.poll_seconds:
            return
        self._asked = time.monotonic()
        records = [r for r in self._store.allocations.values() if r.state in _LIVE]
        jobs = [self._submitted(r) for r in records if r.native_id is not None]
        try:
            states = await in_thread(self._scheduler.states, jobs)
        except (SchedulerFailed, TimeoutError) as problem:
            _log.warning("batch-system-silent", error=str(problem))
            states = {}
        for record in records:
            if record.native_id is None:
                await self._watch_unnamed(record)
            elif (state := states.get(record.allocation_id)) is not None:
                self._note_state(record, state)
        await self._cancel_overdue()

    def _note_state(self, record: AllocationRecord, state: JobState) -> None:
        allocation_id = record.allocation_id
        if state is JobState.GONE:
            with self._store.transaction():
                self._steps.gone(allocation_id)
            _log.info("allocation-gone", allocation=allocation_id)
        elif state is JobState.RUNNING:
            self._runs.confirmed.add(allocation_id)
            if record.started is None:
                with self._store.transaction():
                    self._steps.started(allocation_id, time.time())
        elif record.state is AllocationState.RUNNING and self._runs.has_run(allocation_id):
            self._runs.forget(allocation_id)
            with self._store.transaction():
                self._steps.requeued(allocation_id)
            _log.info("allocation-queued-again", allocation=allocation_id)

    async def _watch_unnamed(self, record: AllocationRecord) -> None:
        """An allocation that was found by its status only: look for its name, or for its end."""
        folder = self._spool.allocation(record.allocation_id)
        found: str | None = None
        with contextlib.suppress(SchedulerFailed, TimeoutError):
            found = await in_thread(self._scheduler.find, record.allocation_id, folder.path)
            status = self._runs.statuses.get(record.allocation_id)
            if found is not None:
                with self._store.transaction():
                    self._steps.submitted(record.allocation_id, found)
            elif status is not None and (status.state == "ended" or self._runs.silent(record.allocation_id)):
                self._note_state(record, JobState.GONE)

    async def _cancel_overdue(self) -> None:
        """End allocations that do not end by themselves, and those that still queue while the edge drains."""
        for record in list(self._store.allocations.values()):
            if record.state not in _LIVE or record.cancelled or record.native_id is None:
                continue
            late = self._late(record)
            queued = record.draining and record.state is AllocationState.QUEUED
            if not late and not queued:
                continue
            _log.info("allocation-cancelled", allocation=record.allocation_id, late=late)
            with contextlib.suppress(SchedulerFailed, TimeoutError):
                await in_thread(self._scheduler.cancel, self._submitted(record))
                with self._store.transaction():
                    latest = self._store.allocations[record.allocation_id]
                    self._store.allocations.put(replace(latest, cancelled=True))

    def _late(self, record: AllocationRecord) -> bool:
        most_s = record.walltime_s + 2 * self._site.allocation.grace_s + _OVERDUE_S
        return record.started is not None and time.time() > record.started + most_s

    def _submitted(self, record: AllocationRecord) -> Submitted:
        return Submitted(
            allocation_id=record.allocation_id,
            native_id=record.native_id or "",
            folder=self._spool.allocation(record.allocation_id).path,
        )
