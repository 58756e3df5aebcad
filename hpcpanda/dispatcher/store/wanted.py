"""Which tasks an edge would take work of, as conditions on the rows of ``tasks``."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, and_, false, or_

from hpcpanda.dispatcher.store.codec import is_id
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.domain.exchange import Capacity
from hpcpanda.domain.room import Room


def wanted(capacity: Capacity) -> Iterator[ColumnElement[bool]]:
    """All of these hold for a task of which the edge takes work.

    An edge that says nothing of its room is given no jobs; whether it runs containers is then not known, and
    not judged.
    """
    t = tasks.c
    kinds: list[ColumnElement[bool]] = [t.job_cores.is_(None)] if capacity.only != "jobs" else []
    if capacity.only != "events" and capacity.room is not None:
        kinds.append(_fits(capacity.room))
    yield or_(false(), *kinds)
    if capacity.room is not None and not capacity.room.containers:
        yield t.in_container.is_(False)
    if capacity.task_id is not None:
        yield t.task_id == capacity.task_id if is_id(capacity.task_id) else false()
    without = [task_id for task_id in capacity.without if is_id(task_id)]
    if without:
        yield t.task_id.not_in(without)


def _fits(room: Room) -> ColumnElement[bool]:
    """The rule of :meth:`Room.refusal`; null, and so false, for a task of events."""
    t = tasks.c
    return and_(
        or_(t.job_cores <= room.cores, t.job_nodes > 1),
        t.job_memory_mb <= room.memory_mb,
        t.job_gpus <= room.gpus,
        t.job_nodes <= room.nodes,
        t.job_walltime_s <= room.seconds,
    )
