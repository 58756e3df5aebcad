"""Merges: what belongs into a task's output at this site, and what a merge pack has made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import hpcpanda
from hpcpanda.allocation.plan import AcceptedEvents, MergePack, PackStatus
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import HpcPandaError, MergeFailed
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import single_events
from hpcpanda.domain.states import TaskState
from hpcpanda_edge.records import MergeOrder, OutputRecord, TaskRecord
from hpcpanda_edge.store import Store

MERGE_ATTEMPTS: Final = 3
"""Merges that may fail before the task is reported as one that cannot be merged here."""
LONGEST_BACK_OFF_S: Final = 900.0


def back_off(fruitless: int) -> float:
    """Seconds from the end of so many packs in a row that came to nothing to the next try."""
    return min(2.0 ** min(fruitless, 10), LONGEST_BACK_OFF_S)


def accepted_events(store: Store, task_id: int) -> tuple[tuple[str, int, IntervalSet], ...]:
    """Journal name, epoch and events of everything the dispatcher has recorded of a task from here."""
    found: list[tuple[str, int, IntervalSet]] = []
    for journal in store.journals.values():
        if journal.task_id != task_id:
            continue
        for epoch, chosen in journal.chosen.items():
            lease = store.leases.get((task_id, epoch))
            recorded = chosen & (lease.acknowledged if lease is not None else EMPTY)
            if recorded:
                found.append((journal.name, epoch, recorded))
    return tuple(sorted(found, key=lambda f: f[:2]))


def failed_events(store: Store, task_id: int) -> IntervalSet:
    """Events of a task that were set aside here, as the dispatcher has recorded."""
    failed = EMPTY
    for lease in store.leases.values():
        if lease.task_id == task_id:
            failed |= single_events(lease.ledger.failed) & lease.acknowledged
    return failed


def outputs_of(store: Store, task_id: int) -> list[OutputRecord]:
    """The merged files of a task made here, by first event."""
    return [store.outputs[key] for key in sorted(k for k in store.outputs if k[0] == task_id)]


def due_merge(store: Store, task: TaskRecord) -> MergeOrder | None:
    """What is to be merged of a task now; None when nothing is.

    What was begun comes first, as it was. Of a task whose events are settled, all the rest; of one that writes several
    files, before that, as soon as there is enough for one.
    """
    most = task.spec.output.max_events
    settled = task.state is TaskState.MERGING
    if task.state.final or not (settled or most is not None or task.merge is not None):
        return None
    accepted = _union([part for _, _, part in accepted_events(store, task.task_id)])
    if task.merge is not None and task.merge.events.issubset(accepted):
        return task.merge
    if len(accepted) < (least := 1 if settled or most is None else most):
        return None
    events = accepted - _union([record.file.events for record in outputs_of(store, task.task_id)])
    if len(events) < least:
        return None
    return MergeOrder(
        events=events, rest=settled, failed=failed_events(store, task.task_id) if settled else EMPTY
    )


def merge_pack(
    store: Store, spool: Spool, task: TaskRecord, order: MergeOrder, *, pack_id: str, site: str
) -> MergePack:
    """The pack that merges some of a task."""
    folder = spool.events(task.task_id)
    return MergePack(
        pack_id=pack_id,
        task_id=task.task_id,
        spec=task.spec,
        accepted=tuple(
            AcceptedEvents(journal=str(folder / name), epoch=epoch, events=mine)
            for name, epoch, events in accepted_events(store, task.task_id)
            if (mine := events & order.events)
        ),
        output=str(spool.output(task.task_id) / task.spec.output.file),
        rest=order.rest,
        failed=order.failed,
        provenance={
            "site": site,
            "task": task.spec.name,
            "task_id": str(task.task_id),
            "hpcpanda": hpcpanda.__version__,
        },
    )


def merge_ended(store: Store, task: TaskRecord, status: PackStatus | None, *, now: float) -> None:
    """Enter what a merge pack has come to; ``status`` is what the head last said about it."""
    if task.merge is None:
        return
    if status is not None and status.ended_by_itself and status.error is None and status.files:
        try:
            _enter_files(store, task, task.merge, status)
        except HpcPandaError as problem:
            store.tasks.put(_merge_failed(task, str(problem), now))
        else:
            store.tasks.put(replace(task, merge=None, merges_failed=0, fruitless=0, error=None))
    elif status is not None and status.ended_by_itself and status.error:
        store.tasks.put(_merge_failed(task, status.error, now))
    elif status is not None and status.died is not None:
        fruitless = task.fruitless + 1
        not_before = now + back_off(fruitless)
        store.tasks.put(replace(task, fruitless=fruitless, error=status.error, not_before=not_before))
    else:
        store.tasks.put(replace(task, not_before=now + 1.0))


def _enter_files(store: Store, task: TaskRecord, order: MergeOrder, status: PackStatus) -> None:
    """Enter the files of a merge, once it is certain that they are what was ordered.

    Raises:
        MergeFailed: an event is in none of them, in two, or was not to be in one.
    """
    events = _union([file.events for file in status.files])
    if len(events) != sum(len(file.events) for file in status.files):
        raise MergeFailed("the merge pack has put events into two files")
    if not events.issubset(order.events) or (order.rest and events != order.events):
        raise MergeFailed("the events in the merge pack's files are not those that it was given")
    for file in status.files:
        report = OutputFile(
            task_id=task.task_id,
            path=file.path,
            manifest=file.manifest,
            events=file.events,
            digest=file.digest,
            size=file.size,
        )
        store.outputs.put(OutputRecord(file=report))


def _union(parts: Sequence[IntervalSet]) -> IntervalSet:
    return IntervalSet.of(r for part in parts for r in part.ranges())


def _merge_failed(task: TaskRecord, error: str, now: float) -> TaskRecord:
    failed = task.merges_failed + 1
    fault = f"the merge failed {failed} times: {error}" if failed >= MERGE_ATTEMPTS else None
    return replace(
        task, merges_failed=failed, error=error, fault=task.fault or fault, not_before=now + 2.0**failed
    )
