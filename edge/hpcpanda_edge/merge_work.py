"""Merges: what belongs into a task's output at this site, and what a merge pack has made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import hpcpanda
from hpcpanda.allocation.plan import AcceptedEvents, MergePack, PackStatus
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import HpcPandaError, MergeFailed
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import single_events
from hpcpanda_edge.records import OutputState, TaskRecord
from hpcpanda_edge.store import Store

MERGE_ATTEMPTS: Final = 3
"""Merges that may fail before the task is reported as one that cannot be merged here."""


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


def merge_pack(store: Store, spool: Spool, task: TaskRecord, *, pack_id: str, site: str) -> MergePack:
    """The pack that merges a task."""
    folder = spool.events(task.task_id)
    return MergePack(
        pack_id=pack_id,
        task_id=task.task_id,
        spec=task.spec,
        accepted=tuple(
            AcceptedEvents(journal=str(folder / name), epoch=epoch, events=events)
            for name, epoch, events in accepted_events(store, task.task_id)
        ),
        output=str(spool.output(task.task_id) / task.spec.output.file),
        failed=failed_events(store, task.task_id),
        provenance={
            "site": site,
            "task": task.spec.name,
            "task_id": str(task.task_id),
            "hpcpanda": hpcpanda.__version__,
        },
    )


def merge_ended(store: Store, task: TaskRecord, status: PackStatus | None, *, now: float) -> TaskRecord:
    """The task after a merge pack has ended; ``status`` is what the head last said about it."""
    if status is not None and status.state == "ended" and status.result:
        parts = [part for _, _, part in accepted_events(store, task.task_id)]
        events = IntervalSet.of(r for part in parts for r in part.ranges())
        try:
            output = output_file(task.task_id, status.result, events)
        except HpcPandaError as problem:
            return _merge_failed(task, str(problem), now)
        return replace(task, output=output, output_state=OutputState.MADE, error=None)
    if status is not None and status.error:
        return _merge_failed(task, status.error, now)
    return replace(task, not_before=now + 1.0)


def output_file(task_id: int, result: dict[str, str | int], events: IntervalSet) -> OutputFile:
    """The report about a merged file; the merge has checked that it holds just ``events``.

    Raises:
        MergeFailed: the merge pack did not say all it should.
    """
    try:
        return OutputFile(
            task_id=task_id,
            path=str(Path(str(result["path"]))),
            manifest=str(result["manifest"]),
            events=events,
            digest=str(result["digest"]),
            size=int(result["size"]),
        )
    except (KeyError, ValueError, TypeError) as problem:
        raise MergeFailed(f"the merge pack's result is not complete: {problem!r}") from problem


def _merge_failed(task: TaskRecord, error: str, now: float) -> TaskRecord:
    failed = task.merges_failed + 1
    fault = f"the merge failed {failed} times: {error}" if failed >= MERGE_ATTEMPTS else None
    return replace(
        task, merges_failed=failed, error=error, fault=task.fault or fault, not_before=now + 2.0**failed
    )
