"""Telling allocations: messages to their heads, as rows from which the files in the spool are written."""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.allocation.plan import Drain, EndWork, InboxMessage
from hpcpanda.domain.states import AllocationState
from hpcpanda_edge.records import AllocationRecord, MessageRecord
from hpcpanda_edge.store import Store


def tell(
    store: Store,
    record: AllocationRecord,
    message: InboxMessage,
    pack_id: str | None = None,
    task_id: int | None = None,
) -> None:
    """Leave a message for the allocation, about a pack of it, about a task in that pack; the record is put with it."""
    number = record.messages + 1
    store.messages.put(MessageRecord(allocation_id=record.allocation_id, number=number, message=message))
    record = replace(record, messages=number)
    if pack_id is not None and (pack := record.pack(pack_id)) is not None:
        pack = replace(pack, last_message=number)
        if task_id is not None and (part := pack.part(task_id)) is not None:
            pack = pack.with_part(replace(part, last_message=number))
        record = record.with_pack(pack)
    store.allocations.put(record)


def drain_pack(
    store: Store, record: AllocationRecord, pack_id: str, *, grace_s: float, gives_way_to: int | None = None
) -> None:
    """Tell a pack to end; the task for which it has to is written down."""
    pack = record.pack(pack_id)
    assert pack is not None
    gives_way_to = gives_way_to or pack.gives_way_to
    record = record.with_pack(replace(pack, draining=True, gives_way_to=gives_way_to))
    tell(store, record, Drain(grace_s=grace_s, pack_id=pack_id), pack_id)


def end_part(store: Store, record: AllocationRecord, pack_id: str, task_id: int, *, grace_s: float) -> None:
    """Tell a pack to be done with a task."""
    tell(store, record, EndWork(pack_id=pack_id, task_id=task_id, grace_s=grace_s), pack_id, task_id)


def reachable(record: AllocationRecord) -> bool:
    """Whether its head may read messages yet."""
    return record.state not in (AllocationState.ENDED, AllocationState.CLOSED)


def unsubmitted(record: AllocationRecord) -> bool:
    """Whether the batch system has certainly never heard of it."""
    return record.state is AllocationState.PLANNED and not record.submitting
