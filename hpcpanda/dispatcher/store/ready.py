"""Ready events in the database: fragments that never touch each other."""

from __future__ import annotations

from itertools import chain

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.tables import ready_ranges
from hpcpanda.domain.intervals import EventRange, IntervalSet

MAX_FRAGMENTS = 1000
"""Most fragments in one lease; what is scattered wider makes several leases."""

_DROP = delete(ready_ranges).where(
    ready_ranges.c.task_id == bindparam("task"), ready_ranges.c.first == bindparam("start")
)


class ReadyRanges:
    """The events of tasks that nobody holds."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def take(self, task_id: int, limit: int) -> IntervalSet:
        """Take out the first ready events, at most ``limit``; touches only the rows it takes from."""
        t = ready_ranges.c
        query = select(t.first, t.last).where(t.task_id == task_id).order_by(t.first).limit(MAX_FRAGMENTS)
        rows = (await self._connection.execute(query)).all()
        head = IntervalSet(tuple(bound for row in rows for bound in row))
        taken, _ = head.take(limit)
        if not taken:
            return taken
        cut = taken.bounds[-1]
        splits = cut not in head.bounds
        if splits:
            statement = update(ready_ranges).where(t.task_id == task_id, t.first == taken.bounds[-2])
            await self._connection.execute(statement.values(first=cut))
        if taken.fragments > splits:
            await self._connection.execute(delete(ready_ranges).where(t.task_id == task_id, t.first < cut))
        return taken

    async def put(self, task_id: int, events: IntervalSet) -> None:
        """Add events that are in no fragment; joins what touches."""
        neighbours: dict[int, int] = {}
        t = ready_ranges.c
        for column, bounds in ((t.last, events.bounds[::2]), (t.first, events.bounds[1::2])):
            for portion in chunks(bounds):
                query = select(t.first, t.last).where(t.task_id == task_id, column.in_(portion))
                for row in await self._connection.execute(query):
                    neighbours[row.first] = row.last
        touching = [EventRange(*ends) for ends in neighbours.items()]
        if touching:
            keys = [{"task": task_id, "start": first} for first in neighbours]
            await self._connection.execute(_DROP, keys)
        joined = IntervalSet.of(chain(events.ranges(), touching))
        rows = [{"task_id": task_id, "first": r.first, "last": r.last} for r in joined.ranges()]
        if rows:
            await self._connection.execute(insert(ready_ranges), rows)

    async def clear(self, task_id: int) -> None:
        """Nothing of the task is ready any more."""
        await self._connection.execute(delete(ready_ranges).where(ready_ranges.c.task_id == task_id))

    async def all_of(self, task_id: int) -> IntervalSet:
        """All ready events of a task."""
        t = ready_ranges.c
        query = select(t.first, t.last).where(t.task_id == task_id).order_by(t.first)
        rows = (await self._connection.execute(query)).all()
        return IntervalSet(tuple(bound for row in rows for bound in row))
