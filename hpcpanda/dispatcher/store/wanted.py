"""Which tasks an edge would take work of, as conditions on the rows of ``tasks``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, bindparam, false, or_

from hpcpanda.dispatcher.store.codec import is_id
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.domain.exchange import Capacity

_NO_TASK = 0
"""No task has this number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Which conditions there are: those of all requests of a kind are the same, and differ in values only."""

    events: bool
    """Tasks of events are taken."""
    jobs: bool
    """Tasks of jobs are taken, as far as they fit."""
    plain: bool
    """Nothing that needs a container is taken."""
    one: bool
    """Work of one task only."""
    without: bool
    """Not of some tasks."""
    above: bool
    """Only of tasks above a priority."""

    @classmethod
    def of(cls, capacity: Capacity) -> Kind:
        """The kind of a request.

        An edge that says nothing of its room is given no jobs; whether it runs containers is then not known, and not
        judged.
        """
        room = capacity.room
        return cls(
            events=capacity.only != "jobs",
            jobs=capacity.only != "events" and room is not None,
            plain=room is not None and not room.containers,
            one=capacity.task_id is not None,
            without=bool(capacity.without),
            above=capacity.above is not None,
        )

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """All of these hold for a task of which the edge takes work; :func:`wanted_values` fills them in."""
        t = tasks.c
        kinds: list[ColumnElement[bool]] = [t.job_cores.is_(None)] if self.events else []
        if self.jobs:
            kinds.append(_fits())
        yield or_(false(), *kinds)
        if self.plain:
            yield t.in_container.is_(False)
        if self.one:
            yield t.task_id == bindparam("only_task")
        if self.without:
            yield t.task_id.not_in(bindparam("without", expanding=True))
        if self.above:
            yield t.priority > bindparam("above")


def wanted_values(capacity: Capacity) -> dict[str, object]:
    """What a request puts into the conditions of its kind."""
    kind, values = Kind.of(capacity), dict[str, object]()
    if kind.jobs and (room := capacity.room) is not None:
        values |= {name: getattr(room, name.removeprefix("room_")) for name in _ROOM}
    if kind.one:
        known = capacity.task_id is not None and is_id(capacity.task_id)
        values["only_task"] = capacity.task_id if known else _NO_TASK
    if kind.without:
        values["without"] = [task_id for task_id in capacity.without if is_id(task_id)]
    if kind.above:
        values["above"] = capacity.above
    return values


_ROOM = ("room_cores", "room_memory_mb", "room_gpus", "room_nodes", "room_seconds")


def _fits() -> ColumnElement[bool]:
    """The rule of :meth:`Room.refusal`; null, and so false, for a task of events."""
    t = tasks.c
    return and_(
        or_(t.job_cores <= bindparam("room_cores"), t.job_nodes > 1),
        t.job_memory_mb <= bindparam("room_memory_mb"),
        t.job_gpus <= bindparam("room_gpus"),
        t.job_nodes <= bindparam("room_nodes"),
        t.job_walltime_s <= bindparam("room_seconds"),
    )
