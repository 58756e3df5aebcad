"""The planner's picture of where things are, from the edge's memory and what the heads last said."""

from __future__ import annotations

from collections.abc import Mapping

from hpcpanda.allocation.plan import AllocationStatus, PackStatus
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState
from hpcpanda_edge import accounts
from hpcpanda_edge.merge_work import accepted_events
from hpcpanda_edge.planner import AllocationView, PackView, Situation, TaskView
from hpcpanda_edge.records import AllocationRecord, OutputState, PackRecord, TaskRecord
from hpcpanda_edge.store import Store

OPEN = (AllocationState.PLANNED, AllocationState.QUEUED, AllocationState.RUNNING, AllocationState.ENDED)
"""States in which an allocation counts against the limits."""

Statuses = Mapping[str, AllocationStatus]
"""What the head of each allocation last wrote."""


def situation(
    store: Store,
    statuses: Statuses,
    *,
    site: Site,
    now: float,
    submit_not_before: float = 0.0,
    draining: bool = False,
) -> Situation:
    """Where things are."""
    return Situation(
        site=site,
        now=now,
        tasks=tuple(_task(store, task) for task in store.tasks.values()),
        allocations=tuple(
            _allocation(record, statuses.get(record.allocation_id), site, now)
            for record in store.allocations.values()
            if record.state in OPEN
        ),
        submit_not_before=submit_not_before,
        draining=draining,
    )


def pack_status(status: AllocationStatus | None, pack_id: str) -> PackStatus | None:
    """What the head last said about a pack."""
    if status is None:
        return None
    return next((p for p in status.packs if p.pack_id == pack_id), None)


def pack_over(pack: PackRecord, status: AllocationStatus | None) -> bool:
    """Whether the head says that a pack has ended, knowing all that the edge had to say to it."""
    said = pack_status(status, pack.pack_id)
    return (
        status is not None
        and said is not None
        and said.state in ("ended", "failed")
        and status.inbox_read >= pack.last_message
    )


def _task(store: Store, task: TaskRecord) -> TaskView:
    waiting = any(c.commit.task_id == task.task_id for c in store.commits.values())
    return TaskView(
        task_id=task.task_id,
        state=task.state,
        ready=accounts.ready_events(store, task.task_id),
        event_seconds=task.event_seconds or task.spec.resources.event_seconds,
        not_before=task.not_before,
        priority=task.spec.priority,
        mergeable=not waiting and bool(accepted_events(store, task.task_id)),
        merged=task.output_state is not OutputState.NONE,
        fault=task.fault is not None,
    )


def _allocation(
    record: AllocationRecord, status: AllocationStatus | None, site: Site, now: float
) -> AllocationView:
    ending = status is not None and status.state in ("draining", "ended")
    useful = record.walltime_s - site.allocation.margin_s
    return AllocationView(
        allocation_id=record.allocation_id,
        nodes=record.nodes,
        packs=tuple(_pack(p, status) for p in record.packs if not p.settled),
        accepts=not (
            ending
            or record.draining
            or record.cancelled
            or record.voided is not None
            or record.state is AllocationState.ENDED
        ),
        running=record.state is AllocationState.RUNNING and status is not None,
        seconds_left=useful - (now - record.started if record.started is not None else 0.0),
    )


def _pack(pack: PackRecord, status: AllocationStatus | None) -> PackView:
    said = pack_status(status, pack.pack_id)
    heard = status is not None and status.inbox_read >= pack.last_message
    running = said is not None and said.state == "running"
    return PackView(
        pack_id=pack.pack_id,
        task_id=pack.task_id,
        kind=pack.kind,
        nodes=pack.nodes,
        cores=said.cores if said is not None and running else 0,
        backlog_s=said.backlog_s if said is not None and running and heard else None,
    )
