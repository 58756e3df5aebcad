"""Steps of the edge's work that change its memory, each called inside a transaction of the store."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from hpcpanda.allocation.plan import (
    AddWork,
    AllocationPlan,
    AllocationStatus,
    Drain,
    EndWork,
    InboxMessage,
    MergePack,
    MpiJobPack,
    Pack,
    PackStatus,
    Revoke,
    StartPack,
    TaskWork,
    ToPack,
    TopUp,
    WorkPack,
)
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationEvent, AllocationState, next_allocation_state
from hpcpanda.planning.actions import (
    Action,
    AddPack,
    CancelAllocation,
    EndPart,
    FeedPack,
    FreeNodes,
    GiveBack,
    NewAllocation,
    PackPlan,
    Share,
)
from hpcpanda.planning.pointless import WINDOW_PASSED
from hpcpanda_edge import accounts
from hpcpanda_edge.input_files import write_listing
from hpcpanda_edge.merge_work import back_off, due_merge, merge_ended, merge_pack
from hpcpanda_edge.records import (
    AllocationRecord,
    MessageRecord,
    PackRecord,
    PartRecord,
    TaskRecord,
)
from hpcpanda_edge.staging import staged_spec
from hpcpanda_edge.store import Store

FRUITLESS_LIMIT: Final = 5
"""Packs that end by themselves in an error, without a finished event between, before the task is reported."""


class Steps:
    """The steps, with what they all need."""

    def __init__(self, store: Store, spool: Spool, site: Site) -> None:
        self._store = store
        self._spool = spool
        self._site = site
        self.staged: dict[int, IntervalSet] = {}
        """Of tasks whose inputs are copied: events, or jobs, whose inputs are in place."""

    # ---- acting on a plan ----

    def act(self, actions: Iterable[Action], now: float) -> None:
        """Enter what a plan says; files and submissions follow from the rows."""
        for action in actions:
            match action:
                case FeedPack():
                    self._feed(action)
                case AddPack():
                    self._add_pack(action)
                case NewAllocation():
                    self._new_allocation(action, now)
                case EndPart():
                    self._end_part(action)
                case FreeNodes():
                    record = self._store.allocations[action.allocation_id]
                    self._drain_pack(record, action.pack_id, grace_s=record.walltime_s)
                case CancelAllocation():
                    self._take_back(action)
                case GiveBack():
                    accounts.give_back(self._store, action.task_id)

    def _feed(self, action: FeedPack) -> None:
        record = self._store.allocations[action.allocation_id]
        pack = record.pack(action.pack_id)
        assert pack is not None
        work = self._hand_out(record.holder(action.pack_id), action.share)
        if work is None:
            return
        if pack.part(work.task_id) is not None:
            message: ToPack = TopUp(
                pack_id=action.pack_id,
                task_id=work.task_id,
                events=work.events,
                job=work.spec.job_request,
            )
        else:
            record = record.with_pack(pack.with_part(_part(work)))
            message = AddWork(pack_id=action.pack_id, work=work)
        self._tell(record, message, action.pack_id, work.task_id)

    def _add_pack(self, action: AddPack) -> None:
        record = self._store.allocations[action.allocation_id]
        pack_id = f"p{len(record.packs) + 1}"
        pack = self._pack(action.pack, record.allocation_id, pack_id)
        if pack is not None:
            packs = (*record.packs, _entry(pack))
            self._tell(replace(record, packs=packs), StartPack(pack=pack), pack_id)

    def _new_allocation(self, action: NewAllocation, now: float) -> None:
        allocation_id = f"a{int(now):x}{secrets.token_hex(3)}"
        found = (self._pack(p, allocation_id, f"p{n}") for n, p in enumerate(action.packs, 1))
        packs = tuple(p for p in found if p is not None)
        if not packs:
            return
        plan = AllocationPlan(
            allocation_id=allocation_id,
            site=self._site,
            nodes=action.nodes,
            walltime_s=action.walltime_s,
            packs=packs,
        )
        self._store.allocations.put(
            AllocationRecord(
                allocation_id=allocation_id,
                nodes=action.nodes,
                walltime_s=action.walltime_s,
                packs=tuple(_entry(p) for p in packs),
                created=now,
                plan=plan,
                in_window=action.in_window,
                why=action.why,
                because=action.because,
            )
        )

    def _take_back(self, action: CancelAllocation) -> None:
        """What the batch system has of it is cancelled with the next look at it; should it start before, it drains."""
        record = self._store.allocations[action.allocation_id]
        self._store.allocations.put(replace(record, missed=action.because.code == WINDOW_PASSED))
        self._end_allocation(self._store.allocations[action.allocation_id])

    def _end_allocation(self, record: AllocationRecord) -> None:
        if _unsubmitted(record):
            self.gone(record.allocation_id)
        elif not record.draining and _reachable(record):
            self._tell(replace(record, draining=True), Drain(grace_s=self._site.allocation.grace_s))

    def _pack(self, plan: PackPlan, allocation_id: str, pack_id: str) -> Pack | None:
        """The pack with the work it begins with; None when there is none for it."""
        holder = f"{allocation_id}-{pack_id}"
        if plan.kind == "merge":
            return self._merge(plan.work[0].task_id, pack_id, plan.nodes)
        work = tuple(w for share in plan.work if (w := self._hand_out(holder, share)) is not None)
        if not work:
            return None
        if plan.kind == "mpi-job":
            return MpiJobPack(pack_id=pack_id, nodes=plan.nodes, work=(work[0],))
        return WorkPack(pack_id=pack_id, nodes=plan.nodes, work=work)

    def _merge(self, task_id: int, pack_id: str, nodes: int) -> Pack | None:
        """A merge pack; what it merges is written down with it."""
        task = self._store.tasks[task_id]
        order = due_merge(self._store, task)
        if order is None:
            return None
        self._store.tasks.put(replace(task, merge=order))
        pack = merge_pack(self._store, self._spool, task, order, pack_id=pack_id, site=self._site.name)
        return replace(pack, nodes=nodes)

    def _hand_out(self, holder: str, share: Share) -> TaskWork | None:
        task = self._store.tasks[share.task_id]
        among = self.staged.get(share.task_id)
        events = accounts.hand_out(self._store, share.task_id, holder, share.events, among=among)
        if not events:
            return None
        spec = staged_spec(task.spec, self._spool, task.task_id)
        write_listing(spec)
        return TaskWork(task_id=task.task_id, spec=spec, events=events, event_seconds=task.event_seconds)

    def _end_part(self, action: EndPart) -> None:
        record = self._store.allocations[action.allocation_id]
        message = EndWork(
            pack_id=action.pack_id, task_id=action.task_id, grace_s=self._site.allocation.grace_s
        )
        self._tell(record, message, action.pack_id, action.task_id)

    def _drain_pack(self, record: AllocationRecord, pack_id: str, *, grace_s: float) -> None:
        pack = record.pack(pack_id)
        assert pack is not None
        record = record.with_pack(replace(pack, draining=True))
        self._tell(record, Drain(grace_s=grace_s, pack_id=pack_id), pack_id)

    def _tell(
        self,
        record: AllocationRecord,
        message: InboxMessage,
        pack_id: str | None = None,
        task_id: int | None = None,
    ) -> None:
        """Leave a message for the allocation, about a pack of it, about a task in that pack."""
        number = record.messages + 1
        self._store.messages.put(
            MessageRecord(allocation_id=record.allocation_id, number=number, message=message)
        )
        record = replace(record, messages=number)
        if pack_id is not None and (pack := record.pack(pack_id)) is not None:
            pack = replace(pack, last_message=number)
            if task_id is not None and (part := pack.part(task_id)) is not None:
                pack = pack.with_part(replace(part, last_message=number))
            record = record.with_pack(pack)
        self._store.allocations.put(record)

    # ---- what the batch system and the heads say ----

    def submitted(self, allocation_id: str, native_id: str) -> None:
        """The batch system has the allocation under this name."""
        record = self._store.allocations[allocation_id]
        state = next_allocation_state(record.state, AllocationEvent.SUBMITTED)
        self._store.allocations.put(replace(record, native_id=native_id, state=state, plan=None))

    def started(self, allocation_id: str, now: float) -> None:
        """The allocation runs."""
        record = self._store.allocations[allocation_id]
        state = next_allocation_state(record.state, AllocationEvent.STARTED)
        if state is not record.state or record.started is None:
            self._store.allocations.put(
                replace(record, state=state, started=record.started or now, plan=None)
            )

    def requeued(self, allocation_id: str) -> None:
        """The batch system has ended the allocation and will run it again as it was."""
        record = self._store.allocations[allocation_id]
        state = next_allocation_state(record.state, AllocationEvent.REQUEUED)
        if state is not record.state:
            self._store.allocations.put(replace(record, state=state, started=None))

    def gone(self, allocation_id: str) -> None:
        """The allocation is certainly out of the batch system."""
        record = self._store.allocations[allocation_id]
        state = next_allocation_state(record.state, AllocationEvent.GONE)
        self._store.allocations.put(replace(record, state=state, plan=None))

    def heard(self, status: AllocationStatus, now: float) -> None:
        """The head has said how it is doing; one that has just begun has the whole walltime before it."""
        record = self._store.allocations[status.allocation_id]
        if status.life > record.life:
            state = next_allocation_state(record.state, AllocationEvent.STARTED)
            self._store.allocations.put(
                replace(record, state=state, started=now, life=status.life, plan=None)
            )
            if status.life > 0:
                self._forbid_settled(record.allocation_id)
        for pack in status.packs:
            for said in pack.tasks:
                task = self._store.tasks.get(said.task_id)
                if task is None:
                    continue
                if said.event_seconds and _differs(said.event_seconds, task.event_seconds):
                    task = replace(task, event_seconds=said.event_seconds)
                    self._store.tasks.put(task)
                if said.state == "failed" and task.fault is None:
                    error = said.error or "its payload cannot be set up"
                    self._store.tasks.put(replace(task, error=error, fault=error))

    def _forbid_settled(self, allocation_id: str) -> None:
        """A head that begins again begins with all that its allocation ever had: what is settled is others' now."""
        grace_s = self._site.allocation.grace_s
        for pack in self._store.allocations[allocation_id].packs:
            if pack.settled and not pack.draining:
                self._drain_pack(self._store.allocations[allocation_id], pack.pack_id, grace_s=grace_s)
            elif not pack.settled:
                for part in pack.parts:
                    if part.settled:
                        message = EndWork(pack_id=pack.pack_id, task_id=part.task_id, grace_s=grace_s)
                        record = self._store.allocations[allocation_id]
                        self._tell(record, message, pack.pack_id, part.task_id)

    # ---- ends ----

    def settle(
        self,
        allocation_id: str,
        pack_id: str,
        task_id: int,
        status: PackStatus | None,
        now: float,
        *,
        late: bool,
    ) -> int:
        """A task in a pack is over and its journals are read to the end: release what was not done.

        ``late``: it was sent to an allocation that was ending and never began, which says nothing about
        the task. Gives the number of events, or jobs, released.
        """
        record = self._store.allocations[allocation_id]
        pack = record.pack(pack_id)
        part = pack.part(task_id) if pack is not None else None
        assert pack is not None
        assert part is not None
        self._store.allocations.put(record.with_pack(pack.with_part(replace(part, settled=True))))
        released = accounts.release(self._store, task_id, record.holder(pack_id))
        task = self._store.tasks.get(task_id)
        if task is None or late:
            return released
        if pack.kind == "merge":
            merge_ended(self._store, task, status, now=now)
        else:
            self._store.tasks.put(_after_part(task, part, status, released, now))
        return released

    def pack_ended(self, allocation_id: str, pack_id: str) -> None:
        """A pack has ended, and all its parts are settled."""
        record = self._store.allocations[allocation_id]
        pack = record.pack(pack_id)
        assert pack is not None
        self._store.allocations.put(record.with_pack(replace(pack, settled=True)))

    def accepted(self, allocation_id: str, pack_id: str, task_id: int, events: int) -> None:
        """Events, or jobs, of a pack's journals were accepted."""
        record = self._store.allocations.get(allocation_id)
        pack = record.pack(pack_id) if record is not None else None
        part = pack.part(task_id) if pack is not None else None
        if record is None or pack is None or part is None:
            return
        part = replace(part, accepted=part.accepted + events)
        self._store.allocations.put(record.with_pack(pack.with_part(part)))
        task = self._store.tasks.get(task_id)
        if task is not None and task.fruitless:
            self._store.tasks.put(replace(task, fruitless=0, failures=0, not_before=0.0))

    def close(self, allocation_id: str) -> None:
        """Everything of an allocation that is gone is committed or given back."""
        record = self._store.allocations[allocation_id]
        state = next_allocation_state(record.state, AllocationEvent.RECOVERED)
        self._store.allocations.put(replace(record, state=state))
        for key in [k for k in self._store.messages if k[0] == allocation_id]:
            self._store.messages.drop(key)

    # ---- taking work away ----

    def revoke(self, holders: frozenset[str], task_id: int, epoch: int) -> None:
        """Tell packs to stop working under an epoch of a task."""
        for record in list(self._store.allocations.values()):
            for pack in record.packs:
                if not pack.settled and record.holder(pack.pack_id) in holders and _reachable(record):
                    latest = self._store.allocations[record.allocation_id]
                    message = Revoke(pack_id=pack.pack_id, task_id=task_id, epochs=(epoch,))
                    self._tell(latest, message, pack.pack_id, task_id)

    def stop_task(self, task_id: int) -> None:
        """Stop all work on a task that needs no more of it: forget its events, end its parts of packs."""
        for lease in accounts.leases_of(self._store, task_id):
            if not lease.lost:
                self.revoke(accounts.lose(self._store, lease), task_id, lease.epoch)
        self.end_parts(task_id)

    def end_parts(self, task_id: int) -> None:
        """Tell packs to be done with a task: there is nothing more to do. A pack that has nothing else ends."""
        grace_s = self._site.allocation.grace_s
        for record in list(self._store.allocations.values()):
            if _unsubmitted(record) and all(p.task_id == task_id for k in record.packs for p in k.parts):
                self.gone(record.allocation_id)
                continue
            for pack in record.packs:
                mine = pack.part(task_id)
                if mine is None or mine.settled or pack.kind == "merge" or not _reachable(record):
                    continue
                latest = self._store.allocations[record.allocation_id]
                if len(pack.open_parts) == 1:
                    self._drain_pack(latest, pack.pack_id, grace_s=grace_s)
                else:
                    message = EndWork(pack_id=pack.pack_id, task_id=task_id, grace_s=grace_s)
                    self._tell(latest, message, pack.pack_id, task_id)

    def drain(self) -> None:
        """Tell every allocation to end."""
        for record in list(self._store.allocations.values()):
            self._end_allocation(record)


def _differs(new: float, old: float | None) -> bool:
    """Whether a measured cost is worth writing down."""
    return old is None or abs(new - old) > 0.1 * old


def _reachable(record: AllocationRecord) -> bool:
    return record.state not in (AllocationState.ENDED, AllocationState.CLOSED)


def _unsubmitted(record: AllocationRecord) -> bool:
    """Whether the batch system has certainly never heard of it."""
    return record.state is AllocationState.PLANNED and not record.submitting


def _part(work: TaskWork) -> PartRecord:
    return PartRecord(task_id=work.task_id, of_jobs=work.of_jobs)


def _entry(pack: Pack) -> PackRecord:
    parts = (
        (PartRecord(task_id=pack.task_id),)
        if isinstance(pack, MergePack)
        else tuple(_part(work) for work in pack.work)
    )
    return PackRecord(pack_id=pack.pack_id, kind=pack.kind, nodes=pack.nodes, parts=parts)


def _error_of(status: PackStatus | None, task_id: int) -> str | None:
    """What a pack complained of: about a task, or as a whole."""
    if status is None:
        return None
    said = status.task(task_id)
    return (said.error if said is not None else None) or status.error


def _after_part(
    task: TaskRecord, part: PartRecord, status: PackStatus | None, released: int, now: float
) -> TaskRecord:
    """Judge a pack by what it has finished of a task: without any progress the next try is put off."""
    if part.accepted or not released:
        return replace(task, fruitless=0, failures=0, not_before=0.0) if part.accepted else task
    error = _error_of(status, task.task_id)
    complaints = "; ".join(status.complaints) if status is not None else ""
    fruitless = task.fruitless + 1
    failed = bool(error) and status is not None and status.ended_by_itself
    failures = task.failures + failed
    fault = task.fault
    if failed and failures >= FRUITLESS_LIMIT:
        fault = fault or f"{failures} packs ended without a finished event; the last said: {error}"
    return replace(
        task,
        fruitless=fruitless,
        failures=failures,
        not_before=now + back_off(fruitless),
        error=error or complaints or task.error,
        fault=fault,
    )
