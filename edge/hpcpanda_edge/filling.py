"""What allocations and packs begin with: ready work of tasks handed out to them, what a merge has to merge; their records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hpcpanda.allocation.plan import AllocationPlan, MergePack, MpiJobPack, Pack, TaskWork, WorkPack
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.site import Site
from hpcpanda.planning.actions import NewAllocation, PackPlan, Share
from hpcpanda_edge import accounts
from hpcpanda_edge.input_files import write_listing
from hpcpanda_edge.merge_work import due_merge, merge_pack
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord
from hpcpanda_edge.staging import staged_spec
from hpcpanda_edge.store import Store


class Filling:
    """Fills packs from the edge's accounts.

    Args:
        store: the edge's memory.
        spool: where inputs and journals are.
        site: where they run.
        staged: of tasks whose inputs are copied, events, or jobs, whose inputs are in place.
    """

    def __init__(self, store: Store, spool: Spool, site: Site, staged: Mapping[int, IntervalSet]) -> None:
        self._store = store
        self._spool = spool
        self._site = site
        self._staged = staged

    def allocation(self, action: NewAllocation, allocation_id: str, now: float) -> AllocationRecord | None:
        """The record of a new allocation, with the packs that it begins with; None when there is no work for it."""
        found = (self.pack(p, allocation_id, f"p{n}") for n, p in enumerate(action.packs, 1))
        packs = tuple(p for p in found if p is not None)
        if not packs:
            return None
        plan = AllocationPlan(
            allocation_id=allocation_id,
            site=self._site,
            nodes=action.nodes,
            walltime_s=action.walltime_s,
            packs=packs,
        )
        return AllocationRecord(
            allocation_id=allocation_id,
            nodes=action.nodes,
            walltime_s=action.walltime_s,
            packs=tuple(pack_record(p) for p in packs),
            created=now,
            plan=plan,
            in_window=action.in_window,
            why=action.why,
            because=action.because,
        )

    def pack(self, plan: PackPlan, allocation_id: str, pack_id: str) -> Pack | None:
        """The pack with the work it begins with; None when there is none for it."""
        holder = f"{allocation_id}-{pack_id}"
        if plan.kind == "merge":
            return self.merge(plan.work[0].task_id, pack_id, plan.nodes)
        work = tuple(w for share in plan.work if (w := self.hand_out(holder, share)) is not None)
        if not work:
            return None
        if plan.kind == "mpi-job":
            return MpiJobPack(pack_id=pack_id, nodes=plan.nodes, work=(work[0],))
        return WorkPack(pack_id=pack_id, nodes=plan.nodes, work=work)

    def merge(self, task_id: int, pack_id: str, nodes: int) -> Pack | None:
        """A merge pack; what it merges is written down with it."""
        task = self._store.tasks[task_id]
        order = due_merge(self._store, task)
        if order is None:
            return None
        self._store.tasks.put(replace(task, merge=order))
        pack = merge_pack(self._store, self._spool, task, order, pack_id=pack_id, site=self._site.name)
        return replace(pack, nodes=nodes)

    def hand_out(self, holder: str, share: Share) -> TaskWork | None:
        """Ready work of a task for a pack, as it is named in the accounts; None when nothing is ready any more."""
        task = self._store.tasks[share.task_id]
        among = self._staged.get(share.task_id)
        events = accounts.hand_out(self._store, share.task_id, holder, share.events, among=among)
        if not events:
            return None
        spec = staged_spec(task.spec, self._spool, task.task_id)
        write_listing(spec)
        return TaskWork(task_id=task.task_id, spec=spec, events=events, event_seconds=task.event_seconds)


def part_record(work: TaskWork) -> PartRecord:
    """The record of a task in a pack."""
    return PartRecord(task_id=work.task_id, of_jobs=work.of_jobs)


def pack_record(pack: Pack) -> PackRecord:
    """The record of a pack that begins."""
    parts = (
        (PartRecord(task_id=pack.task_id),)
        if isinstance(pack, MergePack)
        else tuple(part_record(work) for work in pack.work)
    )
    return PackRecord(pack_id=pack.pack_id, kind=pack.kind, nodes=pack.nodes, parts=parts)
