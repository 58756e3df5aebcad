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
from hpcpanda.domain.task import Staging
from hpcpanda.planning.actions import Plan
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import Situation
from hpcpanda_edge import accounts, files
from hpcpanda_edge.files import Collected, PackJournals, StatusReader
from hpcpanda_edge.learning import Learner
from hpcpanda_edge.looking import Look
from hpcpanda_edge.measuring import Measures, measures_of
from hpcpanda_edge.merge_work import outputs_of
from hpcpanda_edge.outlook import Outlook, OutlookKeeper
from hpcpanda_edge.ports import JobState, SchedulerPort, Submitted
from hpcpanda_edge.records import (
    AllocationRecord,
    JournalName,
    OutputRecord,
    OutputState,
    PackRecord,
    PartRecord,
    TaskRecord,
)
from hpcpanda_edge.staging import Stager
from hpcpanda_edge.state_folder import StateFolder
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.submitting import Submitter, in_thread
from hpcpanda_edge.usage import UsageKeeper
from hpcpanda_edge.view import pack_over, pack_status, part_over, situation
from hpcpanda_edge.windows.watch import WindowWatch

KEPT_ALLOCATIONS: Final = 50
"""Folders of so many closed allocations are kept, for their logs."""
STATUS_STALE_S: Final = 120.0
"""So long a silence of the head means that it has ended, where the batch system cannot be believed at once."""

LOOKS_PER_S: Final = 50.0
"""Files of heads and journals looked at in a second, in the mean: a shared file system serves others too."""

PartKey = tuple[str, str, int]
"""Allocation, pack and task."""

_LIVE = (AllocationState.QUEUED, AllocationState.RUNNING)

_log = structlog.get_logger("hpcpanda.edge")


class Control:
    """One round after the other; each part of a round is one transaction."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        site: Site,
        scheduler: SchedulerPort,
        windows: WindowWatch,
        stager: Stager,
    ) -> None:
        self.store = store
        self._windows = windows
        self._stager = stager
        self.steps = Steps(store, spool, site)
        self.submitter = Submitter(store, self.steps, spool, scheduler)
        self.learner = Learner(store, spool, site, time.time())
        self.usage = UsageKeeper(store, spool, site, time.time())
        self.statuses: dict[str, AllocationStatus] = {}
        self.plan = Plan(actions=(), wants=())
        self.draining = False
        self._situation: Situation | None = None
        self._spool = spool
        self._site = site
        self._scheduler = scheduler
        self._reader = StatusReader(spool)
        self._polled = 0.0
        self._ran = {
            r.allocation_id for r in store.allocations.values() if r.state is AllocationState.RUNNING
        }
        """Allocations that the batch system has said to run, or that ran before this edge began."""
        self._over: dict[PartKey, float] = {}
        self._look_again = 0.0
        self._staging: dict[int, str] = {}
        """What the staging of each task waits for."""
        self._outlook = OutlookKeeper(StateFolder.of(spool.path).outlook)

    async def round(self) -> None:
        """Do all there is to do now."""
        await self._ask_batch_system()
        if (now := time.monotonic()) >= self._look_again:
            await self._read_statuses()
            over = self._parts_over()
            await self._collect(over)
            self._look_again = now + self._files() / LOOKS_PER_S
        self._stage()
        self.make_plan()
        self._learn(time.time())
        self.usage.look(self.statuses)
        self.usage.count(self.statuses, at_once=self.draining and self.idle)
        self._leave_outlook()
        self.submitter.write_messages()
        await self._clean_up()

    def _files(self) -> int:
        """Files that a look at heads and journals has to do with."""
        live = sum(r.state in (*_LIVE, AllocationState.ENDED) for r in self.store.allocations.values())
        return live + sum(not j.closed for j in self.store.journals.values())

    def make_plan(self) -> None:
        """Work out what to do, and enter it."""
        if self.draining:
            with self.store.transaction():
                self.steps.drain()
        now = time.time()
        self._situation = situation(
            self.store,
            self.statuses,
            site=self._site,
            now=now,
            staged=self.steps.staged,
            windows=self._windows.known,
            windows_seen=None if (age_s := self._windows.age_s) is None else now - age_s,
            submit_not_before=self.submitter.not_before,
            draining=self.draining,
            predictions=self.learner.predictions(now),
        )
        self.plan = make_plan(self._situation)
        self._outlook.note(self.plan, now)
        if self.plan.actions:
            with self.store.transaction():
                self.steps.act(self.plan.actions, now)
            for action in self.plan.actions:
                _log.debug("planned", action=action)

    def _learn(self, now: float) -> None:
        """Learn from what has become of allocations, and keep it now and then, at the end of a drain at once."""
        self.learner.look(self.statuses, now)
        self.learner.save(now, at_once=self.draining and self.idle)

    def _leave_outlook(self) -> None:
        """Leave for `status` and `explain` what only this process knows."""
        if self._outlook.due:
            self._outlook.write(self._make_outlook())

    def _make_outlook(self) -> Outlook:
        now = time.time()
        return Outlook(
            written=now,
            windows=self._windows.known,
            windows_unknown=self._windows.unknown,
            windows_seen=None if (age_s := self._windows.age_s) is None else now - age_s,
            submit_not_before=self.submitter.not_before,
            refusal=self.submitter.refusal,
            draining=self.draining,
            staged=self.steps.staged,
            staging=self._staging,
            given_back=self._outlook.given_back,
        )

    def look(self) -> Look | None:
        """Where things were when the last plan was made; None before the first."""
        if self._situation is None:
            return None
        return Look(
            site=self._site,
            spool=self._spool,
            store=self.store,
            running=True,
            now=self._situation.now,
            outlook=self._make_outlook(),
            statuses=self.statuses,
            situation=self._situation,
            plan=self.plan,
            knowledge=self.learner.knowledge,
        )

    @property
    def open_allocations(self) -> int:
        """Allocations that are planned, queued, running, or not settled yet."""
        return sum(r.state is not AllocationState.CLOSED for r in self.store.allocations.values())

    @property
    def idle(self) -> bool:
        """Whether no allocation is left."""
        return not self.open_allocations

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
        elif state is JobState.RUNNING:
            self._ran.add(record.allocation_id)
            if record.started is None:
                with self.store.transaction():
                    self.steps.started(record.allocation_id, time.time())
        elif record.state is AllocationState.RUNNING and self._has_run(record.allocation_id):
            self._forget_run(record.allocation_id)
            with self.store.transaction():
                self.steps.requeued(record.allocation_id)
            _log.info("allocation-queued-again", allocation=record.allocation_id)

    def _has_run(self, allocation_id: str) -> bool:
        """Whether an allocation that queues ran before. The batch system's word may be older than that of a head which
        has just begun; so what only the head has said must have been silent for a while."""
        return allocation_id in self._ran or self._silent(allocation_id)

    def _silent(self, allocation_id: str) -> bool:
        status = self.statuses.get(allocation_id)
        return status is not None and time.time() - status.written > STATUS_STALE_S

    def _forget_run(self, allocation_id: str) -> None:
        """The run of an allocation is over: what its head has said is not said of the next."""
        self._ran.discard(allocation_id)
        self.statuses.pop(allocation_id, None)
        for key in [key for key in self._over if key[0] == allocation_id]:
            del self._over[key]

    async def _watch_unnamed(self, record: AllocationRecord) -> None:
        """An allocation that was found by its status only: look for its name, or for its end."""
        folder = self._spool.allocation(record.allocation_id)
        found: str | None = None
        with contextlib.suppress(SchedulerFailed, TimeoutError):
            found = await in_thread(self._scheduler.find, record.allocation_id, folder.path)
            status = self.statuses.get(record.allocation_id)
            if found is not None:
                with self.store.transaction():
                    self.steps.submitted(record.allocation_id, found)
            elif status is not None and (status.state == "ended" or self._silent(record.allocation_id)):
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
        known = set(self._reader.troubles)
        new = await asyncio.to_thread(self._reader.read, ids)
        for allocation_id in self._reader.troubles.keys() - known:
            _log.error("status-not-understood", error=self._reader.troubles[allocation_id])
        if not new:
            return
        with self.store.transaction():
            for status in new:
                record = self.store.allocations[status.allocation_id]
                if not record.hears(status):
                    continue
                if status.life > record.life:
                    self._forget_run(status.allocation_id)
                self.statuses[status.allocation_id] = status
                self.steps.heard(status, time.time())

    def _parts_over(self) -> set[PartKey]:
        """Tasks that packs are done with: the allocation or the pack has ended, or its head says so; twice, where
        events depend on it."""
        over: set[PartKey] = set()
        for record in self.store.allocations.values():
            status = self.statuses.get(record.allocation_id)
            for pack in record.packs:
                for part in pack.open_parts:
                    key = (record.allocation_id, pack.pack_id, part.task_id)
                    if record.state is AllocationState.ENDED:
                        over.add(key)
                    elif status is not None and (pack_over(pack, status) or part_over(pack, part, status)):
                        first = self._over.setdefault(key, status.written)
                        if first < status.written or not self._holds_events(record, pack, part):
                            over.add(key)
                    else:
                        self._over.pop(key, None)
        return over

    def _holds_events(self, record: AllocationRecord, pack: PackRecord, part: PartRecord) -> bool:
        holder = record.holder(pack.pack_id)
        return any(v.outstanding(holder) for v in accounts.leases_of(self.store, part.task_id))

    async def _collect(self, over: set[PartKey]) -> None:
        """Read what journals newly say, enter it, and settle what is over."""
        wanted = [
            self._journals_of(record, pack, part, over)
            for record in self.store.allocations.values()
            if record.state in (*_LIVE, AllocationState.ENDED)
            for pack in record.packs
            if pack.kind != "merge"
            for part in pack.open_parts
        ]
        found = Collected()
        if wanted:
            found = await asyncio.to_thread(files.collect, self._spool, wanted, dict(self.store.journals))
        for error in found.errors:
            _log.warning("journal-trouble", error=error)
        reports = await asyncio.to_thread(self.learner.reports_of, found) if found.journals else []
        measures = await asyncio.to_thread(measures_of, self._spool, self.store, found)
        ended = await self._with_timelines()
        ended_packs = self._packs_ended(over - found.troubled)
        if not (found.journals or found.broken or over or ended or ended_packs):
            return
        with self.store.transaction():
            self._enter(found, measures)
            for key in sorted(over - found.troubled):
                self._settle(key)
            for allocation_id, pack_id in ended_packs:
                self.steps.pack_ended(allocation_id, pack_id)
            for allocation_id in ended:
                if all(p.settled for p in self.store.allocations[allocation_id].packs):
                    _log.info("allocation-closed", allocation=allocation_id)
                    self.steps.close(allocation_id)
        self.learner.saw(found, reports, time.time())

    def _packs_ended(self, settling: set[PartKey]) -> list[tuple[str, str]]:
        """Packs that have ended, of which every part is settled now."""
        return [
            (record.allocation_id, pack.pack_id)
            for record in self.store.allocations.values()
            for pack in record.packs
            if not pack.settled
            and all((record.allocation_id, pack.pack_id, p.task_id) in settling for p in pack.open_parts)
            and (
                record.state is AllocationState.ENDED
                or pack_over(pack, self.statuses.get(record.allocation_id))
            )
        ]

    async def _with_timelines(self) -> set[str]:
        """Allocations that have ended; what their cores did is written down before journals can go."""
        ended = {r.allocation_id for r in self.store.allocations.values() if r.state is AllocationState.ENDED}
        for allocation_id in ended:
            try:
                await asyncio.to_thread(files.keep_timeline, self._spool, allocation_id)
            except OSError as problem:
                _log.warning("timeline-not-written", allocation=allocation_id, error=str(problem))
        return ended

    def _enter(self, found: Collected, measures: Measures) -> None:
        for read in found.journals:
            name = read.name
            holder = f"{name.allocation_id}-{name.pack_id}"
            record = self.store.journals.get(read.record.key, read.record)
            if accepted := accounts.accept(self.store, record, holder, read.part, measures):
                self.steps.accepted(name.allocation_id, name.pack_id, record.task_id, accepted)
        for record in found.broken:
            latest = self.store.journals.get(record.key, record)
            self.store.journals.put(replace(latest, closed=True))

    def _settle(self, key: PartKey) -> None:
        allocation_id, pack_id, task_id = key
        status = self.statuses.get(allocation_id)
        said = pack_status(status, pack_id)
        late = status is not None and said is None
        released = self.steps.settle(allocation_id, pack_id, task_id, said, time.time(), late=late)
        self._over.pop(key, None)
        error = said.error if said is not None else None
        _log.info(
            "work-ended", allocation=allocation_id, pack=pack_id, task=task_id, released=released, error=error
        )

    def _journals_of(
        self, record: AllocationRecord, pack: PackRecord, part: PartRecord, over: set[PartKey]
    ) -> PackJournals:
        said = pack_status(self.statuses.get(record.allocation_id), pack.pack_id)
        return PackJournals(
            task_id=part.task_id,
            allocation_id=record.allocation_id,
            pack_id=pack.pack_id,
            incarnation=said.incarnation if said is not None else 0,
            over=(record.allocation_id, pack.pack_id, part.task_id) in over,
        )

    # ---- staging ----

    def _stage(self) -> None:
        """Have inputs and outputs copied that are to be, and enter how far they are."""
        self._staging = {}
        for task in list(self.store.tasks.values()):
            if task.state.final or task.fault is not None or task.spec.staging == Staging():
                self.steps.staged.pop(task.task_id, None)
            else:
                needed = accounts.unfinished_events(self.store, task.task_id)
                incoming = self._stager.want(task.task_id, task.spec, needed)
                self.steps.staged[task.task_id] = incoming.ready
                if incoming.waiting is not None:
                    self._staging[task.task_id] = incoming.waiting
                if incoming.fault is not None:
                    self._put_task(replace(task, error=incoming.fault, fault=incoming.fault))
                    continue
        for record in [r for r in self.store.outputs.values() if r.state is OutputState.MADE]:
            self._stage_out(record)

    def _stage_out(self, record: OutputRecord) -> None:
        task = self.store.tasks[record.file.task_id]
        moved = self._stager.want_out(task.task_id, task.spec, record.file)
        if moved.output is not None:
            with self.store.transaction():
                self.store.outputs.put(replace(record, file=moved.output, state=OutputState.MOVED))
        elif moved.waiting is not None:
            self._staging[task.task_id] = moved.waiting
        elif moved.fault is not None and task.fault is None:
            self._put_task(replace(task, error=moved.fault, fault=moved.fault))

    def _put_task(self, task: TaskRecord) -> None:
        with self.store.transaction():
            self.store.tasks.put(task)

    # ---- cleaning up ----

    async def _clean_up(self) -> None:
        """Forget tasks that are final, with their journals and segments; forget old allocations."""
        for task in list(self.store.tasks.values()):
            if task.state.final and not self._in_use(task.task_id):
                await self._forget_task(task.task_id)
        closed = [r for r in self.store.allocations.values() if r.state is AllocationState.CLOSED]
        for record in closed:
            self.statuses.pop(record.allocation_id, None)
        needed = {p.allocation_id for _, name in self.store.journals if (p := JournalName.parse(name))}
        old = [r for r in sorted(closed, key=lambda r: r.created) if r.allocation_id not in needed]
        for record in old[: max(0, len(closed) - KEPT_ALLOCATIONS)]:
            await asyncio.to_thread(files.remove_allocation, self._spool, record.allocation_id)
            with self.store.transaction():
                self.store.allocations.drop(record.allocation_id)

    def _in_use(self, task_id: int) -> bool:
        """Whether something of a final task may still be written, or has to be said."""
        task = self.store.tasks[task_id]
        unread = task.state in (TaskState.DONE, TaskState.FINISHED) and any(
            record.state is not OutputState.RECORDED for record in outputs_of(self.store, task_id)
        )
        packs = any(
            p.task_id == task_id
            for r in self.store.allocations.values()
            for k in r.packs
            for p in k.open_parts
        )
        said = any(c.commit.task_id == task_id for c in self.store.commits.values())
        return unread or packs or said

    async def _forget_task(self, task_id: int) -> None:
        try:
            await self._stager.forget(task_id)
            await asyncio.to_thread(files.remove_task, self._spool, task_id)
        except OSError as problem:
            _log.warning("clean-up-failed", task=task_id, error=str(problem))
            return
        if not self.store.tasks[task_id].state.final:
            return  # it is tried again
        with self.store.transaction():
            for key in [key for key in self.store.journals if key[0] == task_id]:
                self.store.journals.drop(key)
            for lease in accounts.leases_of(self.store, task_id):
                self.store.leases.drop(lease.key)
                self.store.slices.drop(lease.key)
            for record in outputs_of(self.store, task_id):
                self.store.outputs.drop(record.key)
            self.store.tasks.drop(task_id)
        _log.info("task-cleaned-up", task=task_id)
