"""Ready events in the database: fragments that never touch each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import chain

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.tables import ready_ranges
from hpcpanda.domain.intervals import EventRange, IntervalSet

MAX_FRAGMENTS = 1000
"""Most fragments in one lease; what is scattered wider makes several leases."""

_t = ready_ranges.c
_HEADS = (
    select(ready_ranges)
    .where(_t.task_id.in_(bindparam("named", expanding=True)))
    .order_by(_t.task_id, _t.first)
    .limit(MAX_FRAGMENTS)
)
_CUT = (
    update(ready_ranges)
    .where(_t.task_id == bindparam("task"), _t.first == bindparam("start"))
    .values(first=bindparam("cut"))
)
_DROP_BELOW = delete(ready_ranges).where(_t.task_id == bindparam("task"), _t.first < bindparam("cut"))
_ADD = insert(ready_ranges)
_DROP = delete(ready_ranges).where(
    ready_ranges.c.task_id == bindparam("task"), ready_ranges.c.first == bindparam("start")
)


class ReadyRanges:
    """The events of tasks that nobody holds."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def take(self, wanted: Mapping[int, int]) -> dict[int, IntervalSet]:
        """Take out the first ready events of tasks, of each at most so many; touches only the rows it takes from."""
        taken: dict[int, IntervalSet] = {}
        splits: list[dict[str, int]] = []
        ends: list[dict[str, int]] = []
        for task_id, head in (await self._heads(wanted)).items():
            taken[task_id], _ = head.take(wanted[task_id])
            bounds = taken[task_id].bounds
            is_split = bounds[-1] not in head.bounds
            if is_split:
                splits.append({"task": task_id, "start": bounds[-2], "cut": bounds[-1]})
            if taken[task_id].fragments > is_split:
                ends.append({"task": task_id, "cut": bounds[-1]})
        for statement, rows in ((_CUT, splits), (_DROP_BELOW, ends)):
            if rows:
                await self._connection.execute(statement, rows)
        return taken

    async def _heads(self, task_ids: Collection[int]) -> dict[int, IntervalSet]:
        """The first ready events of tasks, in at most ``MAX_FRAGMENTS`` fragments of each."""
        if not task_ids:
            return {}
        rows = (await self._connection.execute(_HEADS, {"named": list(task_ids)})).all()
        if len(rows) == MAX_FRAGMENTS and len(task_ids) > 1:  # there may be more than these
            return {k: head for task_id in task_ids for k, head in (await self._heads([task_id])).items()}
        bounds: dict[int, list[int]] = defaultdict(list)
        for task_id, first, last in rows:
            bounds[task_id] += (first, last)
        return {task_id: IntervalSet(tuple(found)) for task_id, found in bounds.items()}

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
            await self._connection.execute(_ADD, rows)

    async def parts(self, task_id: int, first: int) -> list[EventRange]:
        """Fragments that end behind an event, in order, at most ``MAX_FRAGMENTS``."""
        t = ready_ranges.c
        query = select(t.first, t.last).where(t.task_id == task_id, t.last > first).order_by(t.last)
        rows = await self._connection.execute(query.limit(MAX_FRAGMENTS))
        return [EventRange(row.first, row.last) for row in rows]

    async def take_from(self, task_id: int, parts: IntervalSet, taken: IntervalSet) -> None:
        """Take events out of fragments that :meth:`parts` has given."""
        touched = [part for part in parts.ranges() if taken.overlaps(part.first, part.last)]
        keys = [{"task": task_id, "start": part.first} for part in touched]
        await self._connection.execute(_DROP, keys)
        left = IntervalSet.of(touched) - taken
        rows = [{"task_id": task_id, "first": r.first, "last": r.last} for r in left.ranges()]
        if rows:
            await self._connection.execute(_ADD, rows)

    async def clear(self, task_id: int) -> None:
        """Nothing of the task is ready any more."""
        await self._connection.execute(delete(ready_ranges).where(ready_ranges.c.task_id == task_id))

    async def all_of(self, task_id: int) -> IntervalSet:
        """All ready events of a task."""
        t = ready_ranges.c
        query = select(t.first, t.last).where(t.task_id == task_id).order_by(t.first)
        rows = (await self._connection.execute(query)).all()
        return IntervalSet(tuple(bound for row in rows for bound in row))
