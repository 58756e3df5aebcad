"""Steps of the edge's work that change its memory, each called inside a transaction of the store."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Literal

from hpcpanda.allocation.plan import (
    AllocationPlan,
    AllocationStatus,
    Drain,
    EventPack,
    InboxMessage,
    Pack,
    PackStatus,
    Revoke,
    StartPack,
    TopUp,
)
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationEvent, AllocationState, next_allocation_state
from hpcpanda_edge import accounts
from hpcpanda_edge.merge_work import merge_ended, merge_pack
from hpcpanda_edge.planner import Action, AddPack, FeedPack, GiveBack, NewAllocation
from hpcpanda_edge.records import (
    AllocationRecord,
    MessageRecord,
    OutputState,
    PackRecord,
    TaskRecord,
)
from hpcpanda_edge.store import Store

FRUITLESS_LIMIT: Final = 5
"""Packs that end in an error without a finished event, one after the other, before the task is reported."""
LONGEST_BACK_OFF_S: Final = 900.0


class Steps:
    """The steps, with what they all need."""

    def __init__(self, store: Store, spool: Spool, site: Site) -> None:
        self._store = store
        self._spool = spool
        self._site = site

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
                case GiveBack():
                    accounts.give_back(self._store, action.task_id)

    def _feed(self, action: FeedPack) -> None:
        record = self._store.allocations[action.allocation_id]
        events = accounts.hand_out(self._store, action.task_id, record.holder(action.pack_id), action.events)
        if events:
            self._tell(record, TopUp(pack_id=action.pack_id, events=events), action.pack_id)

    def _add_pack(self, action: AddPack) -> None:
        record = self._store.allocations[action.allocation_id]
        pack = self._pack(action.task_id, action.kind, action.nodes, record.allocation_id, len(record.packs))
        entry = PackRecord(pack_id=pack.pack_id, kind=pack.kind, task_id=pack.task_id, nodes=action.nodes)
        self._tell(replace(record, packs=(*record.packs, entry)), StartPack(pack=pack), pack.pack_id)

    def _new_allocation(self, action: NewAllocation, now: float) -> None:
        allocation_id = f"a{int(now):x}{secrets.token_hex(3)}"
        pack = self._pack(action.task_id, action.kind, action.nodes, allocation_id, 0)
        walltime_s = self._site.allocation.walltime_s
        plan = AllocationPlan(
            allocation_id=allocation_id,
            site=self._site,
            nodes=action.nodes,
            walltime_s=walltime_s,
            packs=(pack,),
        )
        entry = PackRecord(pack_id=pack.pack_id, kind=pack.kind, task_id=pack.task_id, nodes=action.nodes)
        self._store.allocations.put(
            AllocationRecord(
                allocation_id=allocation_id,
                nodes=action.nodes,
                walltime_s=walltime_s,
                packs=(entry,),
                created=now,
                plan=plan,
            )
        )

    def _pack(
        self,
        task_id: int,
        kind: Literal["events", "merge"],
        nodes: int,
        allocation_id: str,
        packs: int,
    ) -> Pack:
        task = self._store.tasks[task_id]
        pack_id = f"p{packs + 1}"
        if kind == "merge":
            return merge_pack(self._store, self._spool, task, pack_id=pack_id, site=self._site.name)
        ready = accounts.ready_events(self._store, task_id)
        events = accounts.hand_out(self._store, task_id, f"{allocation_id}-{pack_id}", ready)
        return EventPack(
            pack_id=pack_id,
            nodes=nodes,
            task_id=task_id,
            spec=task.spec,
            events=events,
            event_seconds=task.event_seconds,
        )

    def _tell(self, record: AllocationRecord, message: InboxMessage, pack_id: str | None) -> None:
        number = record.messages + 1
        self._store.messages.put(
            MessageRecord(allocation_id=record.allocation_id, number=number, message=message)
        )
        record = replace(record, messages=number)
        if pack_id is not None and (pack := record.pack(pack_id)) is not None:
            record = record.with_pack(replace(pack, last_message=number))
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

    def gone(self, allocation_id: str) -> None:
        """The allocation is certainly out of the batch system."""
        record = self._store.allocations[allocation_id]
        state = next_allocation_state(record.state, AllocationEvent.GONE)
        self._store.allocations.put(replace(record, state=state, plan=None))

    def heard(self, status: AllocationStatus) -> None:
        """The head has said how it is doing."""
        for said in status.packs:
            task = self._store.tasks.get(said.task_id)
            if task is None:
                continue
            if said.event_seconds and _differs(said.event_seconds, task.event_seconds):
                task = replace(task, event_seconds=said.event_seconds)
                self._store.tasks.put(task)
            record = self._store.allocations.get(status.allocation_id)
            pack = record.pack(said.pack_id) if record is not None else None
            if said.state == "failed" and pack is not None and pack.kind == "events" and task.fault is None:
                error = said.error or "its payload cannot be set up"
                self._store.tasks.put(replace(task, error=error, fault=error))

    # ---- ends ----

    def settle(
        self, allocation_id: str, pack_id: str, status: PackStatus | None, now: float, *, late: bool
    ) -> int:
        """A pack has ended and its journals are read to the end: release what it did not do.

        ``late``: it was sent to an allocation that was ending and never began, which says nothing about
        its task. Gives the number of events released.
        """
        record = self._store.allocations[allocation_id]
        pack = record.pack(pack_id)
        assert pack is not None
        self._store.allocations.put(record.with_pack(replace(pack, settled=True)))
        released = accounts.release(self._store, pack.task_id, record.holder(pack_id))
        task = self._store.tasks.get(pack.task_id)
        if task is None or late:
            return released
        if pack.kind == "merge":
            if task.output_state is OutputState.NONE:
                self._store.tasks.put(merge_ended(self._store, task, status, now=now))
        else:
            self._store.tasks.put(_after_pack(task, pack, status, released, now))
        return released

    def accepted(self, allocation_id: str, pack_id: str, events: int) -> None:
        """Events of a pack's journals were accepted."""
        record = self._store.allocations.get(allocation_id)
        pack = record.pack(pack_id) if record is not None else None
        if record is not None and pack is not None:
            self._store.allocations.put(record.with_pack(replace(pack, accepted=pack.accepted + events)))
            task = self._store.tasks.get(pack.task_id)
            if task is not None and task.fruitless:
                self._store.tasks.put(replace(task, fruitless=0, not_before=0.0))

    def close(self, allocation_id: str) -> None:
        """Everything of an allocation that is gone is committed or given back."""
        record = self._store.allocations[allocation_id]
        state = next_allocation_state(record.state, AllocationEvent.RECOVERED)
        self._store.allocations.put(replace(record, state=state))
        for key in [k for k in self._store.messages if k[0] == allocation_id]:
            self._store.messages.drop(key)

    # ---- taking work away ----

    def revoke(self, holders: frozenset[str], epoch: int) -> None:
        """Tell packs to stop working under an epoch."""
        for record in list(self._store.allocations.values()):
            for pack in record.packs:
                if not pack.settled and record.holder(pack.pack_id) in holders and _reachable(record):
                    latest = self._store.allocations[record.allocation_id]
                    self._tell(latest, Revoke(pack_id=pack.pack_id, epochs=(epoch,)), pack.pack_id)

    def stop_task(self, task_id: int) -> None:
        """End all packs of a task that needs no more work: forget its events, drain its packs."""
        for lease in accounts.leases_of(self._store, task_id):
            if not lease.lost:
                self.revoke(accounts.lose(self._store, lease), lease.epoch)
        self.drain_packs(task_id)

    def drain_packs(self, task_id: int) -> None:
        """Tell the event packs of a task to end: there is nothing more for them to do."""
        for record in list(self._store.allocations.values()):
            if _unsubmitted(record) and all(p.task_id == task_id for p in record.packs):
                self.gone(record.allocation_id)
                continue
            for pack in record.packs:
                mine = pack.task_id == task_id and pack.kind == "events" and not pack.settled
                if mine and _reachable(record):
                    latest = self._store.allocations[record.allocation_id]
                    message = Drain(grace_s=self._site.allocation.grace_s, pack_id=pack.pack_id)
                    self._tell(latest, message, pack.pack_id)

    def drain(self) -> None:
        """Tell every allocation to end."""
        for record in list(self._store.allocations.values()):
            if _unsubmitted(record):
                self.gone(record.allocation_id)
            elif not record.draining and _reachable(record):
                self._tell(replace(record, draining=True), Drain(grace_s=self._site.allocation.grace_s), None)


def _differs(new: float, old: float | None) -> bool:
    """Whether a measured cost is worth writing down."""
    return old is None or abs(new - old) > 0.1 * old


def _reachable(record: AllocationRecord) -> bool:
    return record.state not in (AllocationState.ENDED, AllocationState.CLOSED)


def _unsubmitted(record: AllocationRecord) -> bool:
    """Whether the batch system has certainly never heard of it."""
    return record.state is AllocationState.PLANNED and not record.submitting


def _after_pack(
    task: TaskRecord, pack: PackRecord, status: PackStatus | None, released: int, now: float
) -> TaskRecord:
    """Judge a pack by what it has finished: without any progress the next try is put off."""
    error = status.error if status is not None else None
    if pack.accepted or not released:
        return replace(task, fruitless=0, not_before=0.0) if pack.accepted else task
    fruitless = task.fruitless + 1
    back_off = min(2.0**fruitless, LONGEST_BACK_OFF_S)
    fault = task.fault
    if error and fruitless >= FRUITLESS_LIMIT:
        fault = fault or f"{fruitless} packs ended without a finished event; the last said: {error}"
    return replace(
        task,
        fruitless=fruitless,
        not_before=now + back_off,
        error=error or task.error,
        fault=fault,
    )
