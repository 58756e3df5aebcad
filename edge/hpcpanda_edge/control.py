"""The edge's round: look at the batch system, the heads and the journals; settle what has ended; plan; act; clean up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Final

import structlog

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState, TaskState
from hpcpanda_edge import accounts, files
from hpcpanda_edge.files import Collected, PackJournals, StatusReader
from hpcpanda_edge.planner import Plan, make_plan
from hpcpanda_edge.ports import JobState, SchedulerPort, Submitted
from hpcpanda_edge.records import AllocationRecord, JournalName, OutputState, PackRecord
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.submitting import Submitter, in_thread
from hpcpanda_edge.view import pack_over, pack_status, situation

KEPT_ALLOCATIONS: Final = 50
"""Folders of so many closed allocations are kept, for their logs."""
STATUS_STALE_S: Final = 120.0
"""Of an allocation whose name in the batch system is not known, so long a silence means that it has ended."""

_LIVE = (AllocationState.QUEUED, AllocationState.RUNNING)

_log = structlog.get_logger("hpcpanda.edge")


class Control:
    """One round after the other; each part of a round is one transaction."""

    def __init__(self, store: Store, spool: Spool, site: Site, scheduler: SchedulerPort) -> None:
        self.store = store
        self.steps = Steps(store, spool, site)
        self.submitter = Submitter(store, self.steps, spool, scheduler)
        self.statuses: dict[str, AllocationStatus] = {}
        self.plan = Plan(actions=(), wants=())
        self.draining = False
        self._spool = spool
        self._site = site
        self._scheduler = scheduler
        self._reader = StatusReader(spool)
        self._polled = 0.0
        self._over: dict[tuple[str, str], float] = {}

    async def round(self) -> None:
        """Do all there is to do now."""
        await self._ask_batch_system()
        await self._read_statuses()
        over = self._packs_over()
        await self._collect(over)
        self.make_plan()
        self.submitter.write_messages()
        await self._clean_up()

    def make_plan(self) -> None:
        """Work out what to do, and enter it."""
        if self.draining:
            with self.store.transaction():
                self.steps.drain()
        now = time.time()
        self.plan = make_plan(
            situation(
                self.store,
                self.statuses,
                site=self._site,
                now=now,
                submit_not_before=self.submitter.not_before,
                draining=self.draining,
            )
        )
        if self.plan.actions:
            with self.store.transaction():
                self.steps.act(self.plan.actions, now)
            for action in self.plan.actions:
                _log.debug("planned", action=action)

    @property
    def idle(self) -> bool:
        """Whether no allocation is left."""
        return all(r.state is AllocationState.CLOSED for r in self.store.allocations.values())

    # ---- the batch system ----

    async def _ask_batch_system(self) -> None:
        if time.monotonic() - self._polled < self._site.scheduler.poll_seconds:
            return
        self._polled = time.monotonic()
        records = [r for r in self.store.allocations.values() if r.state in _LIVE]
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
        if state is JobState.GONE:
            with self.store.transaction():
                self.steps.gone(record.allocation_id)
            _log.info("allocation-gone", allocation=record.allocation_id)
        elif state is JobState.RUNNING and record.started is None:
            with self.store.transaction():
                self.steps.started(record.allocation_id, time.time())

    async def _watch_unnamed(self, record: AllocationRecord) -> None:
        """An allocation that was found by its status only: look for its name, or for its end."""
        folder = self._spool.allocation(record.allocation_id)
        found: str | None = None
        with contextlib.suppress(SchedulerFailed, TimeoutError):
            found = await in_thread(self._scheduler.find, record.allocation_id, folder.path)
            status = self.statuses.get(record.allocation_id)
            silent = status is not None and time.time() - status.written > STATUS_STALE_S
            if found is not None:
                with self.store.transaction():
                    self.steps.submitted(record.allocation_id, found)
            elif status is not None and (status.state == "ended" or silent):
                self._note_state(record, JobState.GONE)

    async def _cancel_overdue(self) -> None:
        """End allocations that do not end by themselves, and those that still queue while the edge drains."""
        grace = self._site.allocation.grace_s
        for record in list(self.store.allocations.values()):
            if record.state not in _LIVE or record.cancelled or record.native_id is None:
                continue
            late = record.started is not None and time.time() > (
                record.started + record.walltime_s + 2 * grace + 60.0
            )
            queued = record.draining and record.state is AllocationState.QUEUED
            if not late and not queued:
                continue
            _log.info("allocation-cancelled", allocation=record.allocation_id, late=late)
            with contextlib.suppress(SchedulerFailed, TimeoutError):
                await in_thread(self._scheduler.cancel, self._submitted(record))
                with self.store.transaction():
                    self.store.allocations.put(
                        replace(self.store.allocations[record.allocation_id], cancelled=True)
                    )

    def _submitted(self, record: AllocationRecord) -> Submitted:
        return Submitted(
            allocation_id=record.allocation_id,
            native_id=record.native_id or "",
            folder=self._spool.allocation(record.allocation_id).path,
        )

    # ---- heads and journals ----

    async def _read_statuses(self) -> None:
        ids = [r.allocation_id for r in self.store.allocations.values() if r.state in _LIVE]
        ids += [r.allocation_id for r in self.store.allocations.values() if r.state is AllocationState.ENDED]
        if not ids:
            return
        new = await asyncio.to_thread(self._reader.read, ids)
        if not new:
            return
        with self.store.transaction():
            for status in new:
                self.statuses[status.allocation_id] = status
                record = self.store.allocations[status.allocation_id]
                if record.state is AllocationState.QUEUED or record.started is None:
                    self.steps.started(status.allocation_id, time.time())
                self.steps.heard(status)

    def _packs_over(self) -> set[tuple[str, str]]:
        """Packs that have ended: their allocation has, or its head says so; twice, where events depend on it."""
        over: set[tuple[str, str]] = set()
        for record in self.store.allocations.values():
            status = self.statuses.get(record.allocation_id)
            for pack in record.packs:
                key = (record.allocation_id, pack.pack_id)
                if pack.settled:
                    continue
                if record.state is AllocationState.ENDED:
                    over.add(key)
                elif status is not None and pack_over(pack, status):
                    first = self._over.setdefault(key, status.written)
                    if first < status.written or not self._holds_events(record, pack):
                        over.add(key)
                else:
                    self._over.pop(key, None)
        return over

    def _holds_events(self, record: AllocationRecord, pack: PackRecord) -> bool:
        holder = record.holder(pack.pack_id)
        return any(v.outstanding(holder) for v in accounts.leases_of(self.store, pack.task_id))

    async def _collect(self, over: set[tuple[str, str]]) -> None:
        """Read what journals newly say, enter it, and settle the packs that have ended."""
        wanted = [
            self._journals_of(record, pack, over)
            for record in self.store.allocations.values()
            if record.state in (*_LIVE, AllocationState.ENDED)
            for pack in record.packs
            if pack.kind == "events" and not pack.settled
        ]
        found = Collected()
        if wanted:
            found = await asyncio.to_thread(files.collect, self._spool, wanted, dict(self.store.journals))
        for error in found.errors:
            _log.warning("journal-trouble", error=error)
        ended = await self._with_timelines()
        if not found.journals and not found.broken and not over and not ended:
            return
        with self.store.transaction():
            self._enter(found)
            for allocation_id, pack_id in sorted(over - found.troubled):
                self._settle(allocation_id, pack_id)
            for allocation_id in ended:
                if all(p.settled for p in self.store.allocations[allocation_id].packs):
                    _log.info("allocation-closed", allocation=allocation_id)
                    self.steps.close(allocation_id)

    async def _with_timelines(self) -> set[str]:
        """Allocations that have ended; what their cores did is written down before journals can go."""
        ended = {r.allocation_id for r in self.store.allocations.values() if r.state is AllocationState.ENDED}
        for allocation_id in ended:
            try:
                await asyncio.to_thread(files.keep_timeline, self._spool, allocation_id)
            except OSError as problem:
                _log.warning("timeline-not-written", allocation=allocation_id, error=str(problem))
        return ended

    def _enter(self, found: Collected) -> None:
        for read in found.journals:
            name = read.name
            holder = f"{name.allocation_id}-{name.pack_id}"
            record = self.store.journals.get(read.record.name, read.record)
            if accepted := accounts.accept(self.store, record, holder, read.part):
                self.steps.accepted(name.allocation_id, name.pack_id, accepted)
        for record in found.broken:
            latest = self.store.journals.get(record.name, record)
            self.store.journals.put(replace(latest, closed=True))

    def _settle(self, allocation_id: str, pack_id: str) -> None:
        status = self.statuses.get(allocation_id)
        said = pack_status(status, pack_id)
        late = status is not None and said is None
        released = self.steps.settle(allocation_id, pack_id, said, time.time(), late=late)
        self._over.pop((allocation_id, pack_id), None)
        error = said.error if said is not None else None
        _log.info("pack-ended", allocation=allocation_id, pack=pack_id, released=released, error=error)

    def _journals_of(
        self, record: AllocationRecord, pack: PackRecord, over: set[tuple[str, str]]
    ) -> PackJournals:
        said = pack_status(self.statuses.get(record.allocation_id), pack.pack_id)
        return PackJournals(
            task_id=pack.task_id,
            allocation_id=record.allocation_id,
            pack_id=pack.pack_id,
            incarnation=said.incarnation if said is not None else 0,
            over=(record.allocation_id, pack.pack_id) in over,
        )

    # ---- cleaning up ----

    async def _clean_up(self) -> None:
        """Forget tasks that are final, with their journals and segments; forget old allocations."""
        for task in list(self.store.tasks.values()):
            if task.state.final and not self._in_use(task.task_id):
                await self._forget_task(task.task_id)
        closed = [r for r in self.store.allocations.values() if r.state is AllocationState.CLOSED]
        for record in closed:
            self.statuses.pop(record.allocation_id, None)
        needed = {p.allocation_id for name in self.store.journals if (p := JournalName.parse(name))}
        old = [r for r in sorted(closed, key=lambda r: r.created) if r.allocation_id not in needed]
        for record in old[: max(0, len(closed) - KEPT_ALLOCATIONS)]:
            await asyncio.to_thread(files.remove_allocation, self._spool, record.allocation_id)
            with self.store.transaction():
                self.store.allocations.drop(record.allocation_id)

    def _in_use(self, task_id: int) -> bool:
        """Whether something of a final task may still be written, or has to be said."""
        task = self.store.tasks[task_id]
        unread = task.state in (TaskState.DONE, TaskState.FINISHED) and task.output_state is OutputState.MADE
        packs = any(
            p.task_id == task_id and not p.settled for r in self.store.allocations.values() for p in r.packs
        )
        said = any(c.commit.task_id == task_id for c in self.store.commits.values())
        return unread or packs or said

    async def _forget_task(self, task_id: int) -> None:
        try:
            await asyncio.to_thread(files.remove_task, self._spool, task_id)
        except OSError as problem:
            _log.warning("clean-up-failed", task=task_id, error=str(problem))
            return
        with self.store.transaction():
            for name in [j.name for j in self.store.journals.values() if j.task_id == task_id]:
                self.store.journals.drop(name)
            for lease in accounts.leases_of(self.store, task_id):
                self.store.leases.drop(lease.key)
            self.store.tasks.drop(task_id)
        _log.info("task-cleaned-up", task=task_id)
