"""What edges report of themselves, in the database: registration, activity, outputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import RowMapping, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import dump_events, dump_room, load_events, load_room
from hpcpanda.dispatcher.store.tables import activity, edges, outputs
from hpcpanda.domain.exchange import OutputFile, TaskActivity
from hpcpanda.domain.room import Room

_ONE = select(edges).where(edges.c.name == bindparam("this"))
_ONE_HELD = _ONE.with_for_update(key_share=True)
_THIS = update(edges).where(edges.c.name == bindparam("this"))
_SEEN = _THIS.values(last_seen=bindparam("now"))
_SEEN_WITH_ROOM = _SEEN.values(room=bindparam("has_room"))
_HEARD = _SEEN.where(edges.c.instance == bindparam("caller"))
_SILENT = delete(activity).where(activity.c.edge == bindparam("this"))
_AT_WORK = insert(activity)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRecord:
    """A registered edge as stored."""

    name: str
    instance: str
    cores: int
    version: str
    last_seen: float
    room: Room | None = None
    """Covers all that it has asked for since its registration; None while it has asked for no jobs."""


class Edges:
    """Registered edges."""

    def __init__(self, connection: AsyncConnection, *, holds_rows: bool) -> None:
        self._connection = connection
        self._holds_rows = holds_rows

    async def get(self, name: str) -> EdgeRecord | None:
        """The edge of that name, if one has registered; in a transaction that writes, nobody else changes it."""
        query = _ONE_HELD if self._holds_rows else _ONE
        row = (await self._connection.execute(query, {"this": name})).mappings().first()
        return None if row is None else _edge(row)

    async def put(self, record: EdgeRecord) -> None:
        """Insert or replace a registration."""
        values = {
            "instance": record.instance,
            "cores": record.cores,
            "version": record.version,
            "last_seen": record.last_seen,
            "room": dump_room(record.room),
        }
        changed = await self._connection.execute(
            update(edges).where(edges.c.name == record.name).values(values)
        )
        if changed.rowcount == 0:
            await self._connection.execute(insert(edges).values(name=record.name, **values))

    async def seen(self, name: str, now: float, *, room: Room | None = None) -> None:
        """Note that the edge has been heard of, and what it has been found to have room for, if anything."""
        if room is None:
            await self._connection.execute(_SEEN, {"this": name, "now": now})
        else:
            values = {"this": name, "now": now, "has_room": dump_room(room)}
            await self._connection.execute(_SEEN_WITH_ROOM, values)

    async def heard(self, name: str, instance: str, now: float) -> bool:
        """Note that an instance of the edge has been heard of; False, and nothing is noted, when it is not the one
        registered. Nobody else changes the edge until the transaction ends."""
        values = {"this": name, "caller": instance, "now": now}
        return (await self._connection.execute(_HEARD, values)).rowcount == 1

    async def last_heard(self) -> EdgeRecord | None:
        """The edge that was heard of last; None while none has registered."""
        query = select(edges).order_by(edges.c.last_seen.desc(), edges.c.name).limit(1)
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else _edge(row)

    async def page(self, *, after: str, limit: int) -> list[EdgeRecord]:
        """Edges by name, those behind ``after``."""
        query = select(edges).where(edges.c.name > after).order_by(edges.c.name).limit(limit)
        return [_edge(row) for row in (await self._connection.execute(query)).mappings()]


def _edge(row: RowMapping) -> EdgeRecord:
    return EdgeRecord(**{**row, "room": load_room(row["room"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """Cores at work on a task, over all edges."""

    cores: int = 0
    cores_busy: float = 0.0


class Activity:
    """What each edge last said it is doing."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def replace(self, edge: str, reports: Collection[TaskActivity], now: float) -> None:
        """Put an edge's reports in the place of its earlier ones."""
        await self._connection.execute(_SILENT, {"this": edge})
        rows = [
            {
                "edge": edge,
                "task_id": report.task_id,
                "cores": report.cores,
                "cores_busy": report.cores_busy,
                "reported": now,
            }
            for report in reports
        ]
        if rows:
            await self._connection.execute(_AT_WORK, rows)

    async def busy_with(self, edge: str) -> set[int]:
        """Tasks on which an edge last said that cores are at work."""
        t = activity.c
        query = select(t.task_id).where(t.edge == edge, t.cores_busy > 0)
        return set((await self._connection.execute(query)).scalars())

    async def of_tasks(self, task_ids: Collection[int], since: float) -> dict[int, Busy]:
        """Cores per task, by reports not older than ``since``."""
        found: dict[int, Busy] = {}
        t = activity.c
        for portion in chunks(task_ids):
            query = (
                select(t.task_id, func.sum(t.cores), func.sum(t.cores_busy))
                .where(t.task_id.in_(portion), t.reported >= since)
                .group_by(t.task_id)
            )
            for task_id, cores, busy in await self._connection.execute(query):
                found[task_id] = Busy(cores=int(cores), cores_busy=busy)
        return found


class OutputFiles:
    """Merged files of tasks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of_task(self, task_id: int) -> list[tuple[str, OutputFile]]:
        """Outputs of a task with the edges that wrote them, in event order."""
        rows = await self._connection.execute(select(outputs).where(outputs.c.task_id == task_id))
        found = [
            (
                row.edge,
                OutputFile(
                    task_id=task_id,
                    path=row.path,
                    manifest=row.manifest,
                    events=load_events(row.events),
                    digest=row.digest,
                    size=row.size,
                ),
            )
            for row in rows
        ]
        return sorted(found, key=lambda pair: pair[1].events.bounds)

    async def add(self, edge: str, output: OutputFile) -> None:
        """Record a merged file."""
        row = {
            "task_id": output.task_id,
            "path": output.path,
            "edge": edge,
            "manifest": output.manifest,
            "events": dump_events(output.events),
            "digest": output.digest,
            "size": output.size,
        }
        await self._connection.execute(insert(outputs).values(row))
