"""What a head's status says of packs and their tasks, written down."""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.allocation.plan import PackStatus
from hpcpanda_edge.store import Store


def note_progress(store: Store, allocation_id: str, said: PackStatus, now: float) -> None:
    """When a pack began with each of its tasks, and when it came to something."""
    record = store.allocations[allocation_id]
    pack = record.pack(said.pack_id)
    if pack is None or said.state != "running":
        return
    noted = pack
    for progress in said.tasks:
        part = noted.part(progress.task_id)
        if part is not None and (part.begun is None or (part.since is None and progress.done)):
            since = part.since or (now if progress.done else None)
            noted = noted.with_part(replace(part, begun=part.begun or now, since=since))
    if noted is not pack:
        store.allocations.put(record.with_pack(noted))


def note_tasks(store: Store, said: PackStatus) -> None:
    """What the events of each task cost, and that one cannot run here."""
    for progress in said.tasks:
        task = store.tasks.get(progress.task_id)
        if task is None:
            continue
        if progress.event_seconds and _differs(progress.event_seconds, task.event_seconds):
            task = replace(task, event_seconds=progress.event_seconds)
            store.tasks.put(task)
        if progress.state == "failed" and task.fault is None:
            error = progress.error or "its payload cannot be set up"
            store.tasks.put(replace(task, error=error, fault=error))


def _differs(new: float, old: float | None) -> bool:
    """Whether a measured cost is worth writing down."""
    return old is None or abs(new - old) > 0.1 * old
