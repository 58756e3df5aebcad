"""The planner's picture of where things are, from the edge's memory and what the heads last said."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from hpcpanda.allocation.plan import AllocationStatus, PackStatus, TaskProgress
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState, TaskState
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.planning.pointless import patience_s
from hpcpanda.planning.situation import AllocationView, PackView, PartView, Situation, TaskView
from hpcpanda_edge import accounts
from hpcpanda_edge.learning import Predictions
from hpcpanda_edge.merge_work import due_merge, outputs_of
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord, TaskRecord
from hpcpanda_edge.store import Store

OPEN = (AllocationState.PLANNED, AllocationState.QUEUED, AllocationState.RUNNING, AllocationState.ENDED)
"""States in which an allocation counts against the limits."""

_FIRST_MISS_PAUSE_S: Final = 30.0
_LONGEST_MISS_PAUSE_S: Final = 900.0

Held = Mapping[tuple[int, str], int]
"""Unfinished events, or jobs, by task and pack."""
Statuses = Mapping[str, AllocationStatus]
"""What the head of each allocation last wrote."""


def situation(
    store: Store,
    statuses: Statuses,
    *,
    site: Site,
    now: float,
    staged: Mapping[int, IntervalSet] | None = None,
    windows: tuple[BackfillWindow, ...] | None = None,
    windows_seen: float | None = None,
    submit_not_before: float = 0.0,
    draining: bool = False,
    predictions: Predictions | None = None,
) -> Situation:
    """Where things are. ``staged``: of tasks whose inputs are copied, the events or jobs whose inputs are in place."""
    in_place = staged or {}
    learnt = predictions or Predictions()
    held = accounts.held_events(store)
    return Situation(
        site=site,
        now=now,
        tasks=tuple(_task(store, task, in_place.get(task.task_id), learnt) for task in store.tasks.values()),
        allocations=tuple(
            _allocation(record, statuses.get(record.allocation_id), held, site, now)
            for record in store.allocations.values()
            if record.state in OPEN
        ),
        windows=windows,
        windows_seen=windows_seen,
        windows_not_before=_windows_not_before(store, site),
        forecast=learnt.forecast,
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
    heard = status is not None and status.inbox_read >= pack.last_message
    return heard and said is not None and said.state == "ended"


def part_over(pack: PackRecord, part: PartRecord, status: AllocationStatus | None) -> bool:
    """Whether the head says that a pack is done with a task, knowing all that the edge had to say about it."""
    said = _progress(status, pack, part)
    heard = status is not None and status.inbox_read >= part.last_message
    return heard and said is not None and said.state in ("ended", "failed")


def _progress(status: AllocationStatus | None, pack: PackRecord, part: PartRecord) -> TaskProgress | None:
    said = pack_status(status, pack.pack_id)
    return said.task(part.task_id) if said is not None else None


def _task(store: Store, task: TaskRecord, in_place: IntervalSet | None, learnt: Predictions) -> TaskView:
    here = accounts.ready_events(store, task.task_id)
    ready = here if in_place is None else here & in_place
    settled = task.state is TaskState.MERGING
    waiting = settled and any(c.commit.task_id == task.task_id for c in store.commits.values())
    to_merge = not waiting and due_merge(store, task) is not None
    return TaskView(
        task_id=task.task_id,
        state=task.state,
        job=task.spec.job_request,
        ready=len(ready),
        staging=len(ready) < len(here),
        event_seconds=task.event_seconds
        or learnt.event_seconds.get(task.task_id)
        or task.spec.resources.event_seconds,
        job_seconds=learnt.job_seconds.get(task.task_id),
        not_before=task.not_before,
        priority=task.spec.priority,
        deadline=task.spec.deadline.timestamp() if task.spec.deadline else None,
        mergeable=to_merge,
        merged=settled and not (waiting or to_merge) and bool(outputs_of(store, task.task_id)),
        fault=task.fault is not None,
    )


def _allocation(
    record: AllocationRecord, status: AllocationStatus | None, held: Held, site: Site, now: float
) -> AllocationView:
    ending = status is not None and status.state in ("draining", "ended")
    useful = record.walltime_s - site.allocation.margin_s
    return AllocationView(
        allocation_id=record.allocation_id,
        nodes=record.nodes,
        packs=tuple(_pack(record, p, status, held) for p in record.packs if not p.settled),
        accepts=not (
            ending
            or record.draining
            or record.cancelled
            or record.voided is not None
            or record.state is AllocationState.ENDED
        ),
        running=record.state is AllocationState.RUNNING and status is not None,
        in_window=record.in_window,
        asked=record.created,
        since=record.started,
        seconds_left=useful - (now - record.started if record.started is not None else 0.0),
        lost_nodes=_lost_nodes(record, status),
    )


def _windows_not_before(store: Store, site: Site) -> float:
    """Requests for windows that were missed one after the other put off the next, for twice as long each time."""
    asked = sorted((r for r in store.allocations.values() if r.in_window), key=lambda r: -r.created)
    missed = list(itertools.takewhile(lambda r: r.missed and r.started is None, asked))
    if not missed:
        return 0.0
    pause_s = min(_FIRST_MISS_PAUSE_S * 2.0 ** min(len(missed) - 1, 10), _LONGEST_MISS_PAUSE_S)
    return missed[0].created + patience_s(site.scheduler.poll_seconds) + pause_s


def _lost_nodes(record: AllocationRecord, status: AllocationStatus | None) -> int:
    left = status.nodes if status is not None else None
    return record.nodes - left if left is not None and 0 < left < record.nodes else 0


def _pack(
    record: AllocationRecord, pack: PackRecord, status: AllocationStatus | None, held: Held
) -> PackView:
    said = pack_status(status, pack.pack_id)
    heard = status is not None and status.inbox_read >= pack.last_message
    running = said is not None and said.state == "running"
    return PackView(
        pack_id=pack.pack_id,
        kind=pack.kind,
        nodes=min(pack.nodes, max(1, said.nodes))
        if said is not None and said.nodes is not None
        else pack.nodes,
        parts=tuple(
            _part(pack, part, status, held.get((part.task_id, record.holder(pack.pack_id)), 0))
            for part in pack.open_parts
        ),
        past=frozenset(p.task_id for p in pack.parts if p.settled),
        cores=said.cores if said is not None and running else 0,
        job_cores=said.job_cores if said is not None and running and heard else None,
        draining=pack.draining,
    )


def _part(pack: PackRecord, part: PartRecord, status: AllocationStatus | None, held: int) -> PartView:
    said = _progress(status, pack, part)
    heard = status is not None and status.inbox_read >= part.last_message
    known = PartView(
        task_id=part.task_id, of_jobs=part.of_jobs, held=held, begun=part.begun, since=part.since
    )
    if said is None or not heard:
        return known
    return replace(known, backlog_s=said.backlog_s, waiting=said.waiting, idle=said.idle)
