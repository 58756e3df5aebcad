"""Steps of the edge's work that change its memory, each called inside a transaction of the store."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace

from hpcpanda.allocation.plan import (
    AddWork,
    AllocationStatus,
    Drain,
    PackStatus,
    Revoke,
    StartPack,
    ToPack,
    TopUp,
)
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationEvent, next_allocation_state
from hpcpanda.planning.actions import (
    Action,
    AddPack,
    CancelAllocation,
    EndPart,
    FeedPack,
    FreeNodes,
    GiveBack,
    NewAllocation,
)
from hpcpanda.planning.pointless import WINDOW_PASSED
from hpcpanda_edge import accounts
from hpcpanda_edge.filling import Filling, pack_record, part_record
from hpcpanda_edge.hearing import note_progress, note_tasks
from hpcpanda_edge.judging import after_part
from hpcpanda_edge.merge_work import merge_ended
from hpcpanda_edge.records import AllocationRecord
from hpcpanda_edge.store import Store
from hpcpanda_edge.telling import drain_pack, end_part, reachable, tell, unsubmitted


class Steps:
    """The steps, with what they all need."""

    def __init__(self, store: Store, spool: Spool, site: Site) -> None:
        self._store = store
        self._grace_s = site.allocation.grace_s
        self.staged: dict[int, IntervalSet] = {}
        """Of tasks whose inputs are copied: events, or jobs, whose inputs are in place."""
        self._filling = Filling(store, spool, site, self.staged)

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
                    record = self._store.allocations[action.allocation_id]
                    end_part(self._store, record, action.pack_id, action.task_id, grace_s=self._grace_s)
                case FreeNodes():
                    self._free_nodes(action)
                case CancelAllocation():
                    self._take_back(action)
                case GiveBack():
                    accounts.give_back(self._store, action.task_id)

    def _feed(self, action: FeedPack) -> None:
        record = self._store.allocations[action.allocation_id]
        pack = record.pack(action.pack_id)
        assert pack is not None
        work = self._filling.hand_out(record.holder(action.pack_id), action.share)
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
            record = record.with_pack(pack.with_part(part_record(work)))
            message = AddWork(pack_id=action.pack_id, work=work)
        tell(self._store, record, message, action.pack_id, work.task_id)

    def _add_pack(self, action: AddPack) -> None:
        record = self._store.allocations[action.allocation_id]
        pack_id = f"p{len(record.packs) + 1}"
        pack = self._filling.pack(action.pack, record.allocation_id, pack_id)
        if pack is not None:
            packs = (*record.packs, pack_record(pack))
            tell(self._store, replace(record, packs=packs), StartPack(pack=pack), pack_id)

    def _new_allocation(self, action: NewAllocation, now: float) -> None:
        allocation_id = f"a{int(now):x}{secrets.token_hex(3)}"
        record = self._filling.allocation(action, allocation_id, now)
        if record is not None:
            self._store.allocations.put(record)

    def _free_nodes(self, action: FreeNodes) -> None:
        """What the pack has in hand is finished, however long it takes."""
        record = self._store.allocations[action.allocation_id]
        drain_pack(
            self._store,
            record,
            action.pack_id,
            grace_s=record.walltime_s,
            gives_way_to=action.for_task,
        )

    def _take_back(self, action: CancelAllocation) -> None:
        """What the batch system has of it is cancelled with the next look at it; should it start before, it drains."""
        record = self._store.allocations[action.allocation_id]
        self._store.allocations.put(replace(record, missed=action.because.code == WINDOW_PASSED))
        self._end_allocation(self._store.allocations[action.allocation_id])

    def _end_allocation(self, record: AllocationRecord) -> None:
        if unsubmitted(record):
            self.gone(record.allocation_id)
        elif not record.draining and reachable(record):
            tell(self._store, replace(record, draining=True), Drain(grace_s=self._grace_s))

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
            packs = tuple(pack.begins_again() for pack in record.packs)
            self._store.allocations.put(
                replace(record, state=state, started=now, life=status.life, plan=None, packs=packs)
            )
            if status.life > 0:
                self._forbid_settled(record.allocation_id)
        for pack in status.packs:
            note_progress(self._store, status.allocation_id, pack, now)
            note_tasks(self._store, pack)

    def _forbid_settled(self, allocation_id: str) -> None:
        """A head that begins again begins with all that its allocation ever had: what is settled is others' now."""
        for pack in self._store.allocations[allocation_id].packs:
            record = self._store.allocations[allocation_id]
            if pack.settled and not pack.draining:
                drain_pack(self._store, record, pack.pack_id, grace_s=self._grace_s)
            elif not pack.settled:
                for part in pack.parts:
                    if part.settled:
                        record = self._store.allocations[allocation_id]
                        end_part(self._store, record, pack.pack_id, part.task_id, grace_s=self._grace_s)

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
            self._store.tasks.put(after_part(task, part, status, released, now))
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
                if not pack.settled and record.holder(pack.pack_id) in holders and reachable(record):
                    latest = self._store.allocations[record.allocation_id]
                    message = Revoke(pack_id=pack.pack_id, task_id=task_id, epochs=(epoch,))
                    tell(self._store, latest, message, pack.pack_id, task_id)

    def stop_task(self, task_id: int) -> None:
        """Stop all work on a task that needs no more of it: forget its events, end its parts of packs."""
        for lease in accounts.leases_of(self._store, task_id):
            if not lease.lost:
                self.revoke(accounts.lose(self._store, lease), task_id, lease.epoch)
        self.end_parts(task_id)

    def end_parts(self, task_id: int) -> None:
        """Tell packs to be done with a task: there is nothing more to do. A pack that has nothing else ends."""
        for record in list(self._store.allocations.values()):
            if unsubmitted(record) and all(p.task_id == task_id for k in record.packs for p in k.parts):
                self.gone(record.allocation_id)
                continue
            for pack in record.packs:
                mine = pack.part(task_id)
                if mine is None or mine.settled or pack.kind == "merge" or not reachable(record):
                    continue
                latest = self._store.allocations[record.allocation_id]
                if len(pack.open_parts) == 1:
                    drain_pack(self._store, latest, pack.pack_id, grace_s=self._grace_s)
                else:
                    end_part(self._store, latest, pack.pack_id, task_id, grace_s=self._grace_s)

    def drain(self) -> None:
        """Tell every allocation to end."""
        for record in list(self._store.allocations.values()):
            self._end_allocation(record)
