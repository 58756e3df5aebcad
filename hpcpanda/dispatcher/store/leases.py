"""Leases and failed events in the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import ColumnElement, Row, bindparam, delete, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import dump_events, is_id, load_events
from hpcpanda.dispatcher.store.control import History, dump_history, load_history
from hpcpanda.dispatcher.store.pulse import AWAY_SECONDS
from hpcpanda.dispatcher.store.service_tables import pulse
from hpcpanda.dispatcher.store.tables import failed_events, leases
from hpcpanda.domain.failures import ListedFailure, listed
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import EventLease, FailedEvent, single_events

LeaseKey = tuple[int, int]
"""``(task_id, epoch)``."""

_BY_KEY = (leases.c.task_id == bindparam("task"), leases.c.epoch == bindparam("key"))
_SAVE = (
    update(leases)
    .where(*_BY_KEY)
    .values({name: bindparam(name) for name in ("outstanding", "committed", "expires", "is_open")})
)
_ADD = insert(leases)
_HELD = select(leases).where(
    tuple_(leases.c.task_id, leases.c.epoch).in_(bindparam("keys", expanding=True)),
    leases.c.edge == bindparam("holder"),
)
_RENEW = update(leases).where(*_BY_KEY).values(expires=bindparam("expires"))


class Leases:
    """Leases of all tasks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, new: Iterable[tuple[int, EventLease]]) -> None:
        """Insert new leases of tasks."""
        rows = [
            {
                "task_id": task_id,
                "epoch": lease.epoch,
                "edge": lease.holder,
                "granted": dump_events(lease.granted),
                "outstanding": dump_events(lease.outstanding),
                "committed": dump_events(lease.committed),
                "expires": lease.expires,
                "is_open": not lease.closed,
            }
            for task_id, lease in new
        ]
        if rows:
            await self._connection.execute(_ADD, rows)

    async def held_by(self, edge: str, keys: Iterable[LeaseKey]) -> dict[LeaseKey, EventLease]:
        """Those of the leases named that exist and are the edge's."""
        found: dict[LeaseKey, EventLease] = {}
        for portion in chunks({key for key in keys if is_id(key[0]) and is_id(key[1])}):
            for row in await self._connection.execute(_HELD, {"keys": portion, "holder": edge}):
                found[row.task_id, row.epoch] = _lease(row)
        return found

    async def save(self, changed: Mapping[LeaseKey, EventLease]) -> None:
        """Write what leases hold and until when."""
        rows = [
            {
                "task": task_id,
                "key": epoch,
                "outstanding": dump_events(lease.outstanding),
                "committed": dump_events(lease.committed),
                "expires": lease.expires,
                "is_open": not lease.closed,
            }
            for (task_id, epoch), lease in changed.items()
        ]
        if rows:
            await self._connection.execute(_SAVE, rows)

    async def save_expiry(self, renewed: Mapping[LeaseKey, EventLease]) -> None:
        """Write only until when leases last."""
        rows = [{"task": t, "key": e, "expires": lease.expires} for (t, e), lease in renewed.items()]
        if rows:
            await self._connection.execute(_RENEW, rows)

    async def tasks_overdue(self, now: float, limit: int) -> set[int]:
        """Tasks of the ``limit`` open leases whose time has been up for longest; none while nobody could renew."""
        query = select(leases.c.task_id).where(*_overdue(now)).order_by(leases.c.expires).limit(limit)
        return set((await self._connection.execute(query)).scalars())

    async def overdue(self, task_ids: Collection[int], now: float, limit: int) -> dict[LeaseKey, EventLease]:
        """Open leases of these tasks whose time is up, the longest first."""
        found: dict[LeaseKey, EventLease] = {}
        for portion in chunks(task_ids):
            query = select(leases).where(*_overdue(now), leases.c.task_id.in_(portion))
            query = query.order_by(leases.c.expires).limit(limit)
            for row in await self._connection.execute(query):
                found[row.task_id, row.epoch] = _lease(row)
        return found

    async def open_of(self, task_id: int, limit: int) -> list[EventLease]:
        """Open leases of a task, oldest first."""
        query = (
            select(leases)
            .where(leases.c.task_id == task_id, leases.c.is_open.is_(True))
            .order_by(leases.c.epoch)
            .limit(limit)
        )
        return [_lease(row) for row in await self._connection.execute(query)]

    async def all_of(self, task_id: int) -> list[EventLease]:
        """Every lease of a task that is kept."""
        query = select(leases).where(leases.c.task_id == task_id)
        return [_lease(row) for row in await self._connection.execute(query)]

    async def open_held_by(self, edge: str) -> list[LeaseKey]:
        """Which open leases an edge has."""
        query = select(leases.c.task_id, leases.c.epoch).where(
            leases.c.edge == edge, leases.c.is_open.is_(True)
        )
        return [(row.task_id, row.epoch) for row in await self._connection.execute(query)]

    async def close_all_of(self, task_id: int) -> None:
        """End every lease of a task; what was outstanding is dropped."""
        statement = update(leases).where(leases.c.task_id == task_id, leases.c.is_open.is_(True))
        await self._connection.execute(statement.values(outstanding="[]", is_open=False))

    async def restart_all(self, expires: float) -> None:
        """Give every open lease the same new end."""
        statement = update(leases).where(leases.c.is_open.is_(True)).values(expires=expires)
        await self._connection.execute(statement)

    async def committed_by(self, task_id: int, edge: str) -> IntervalSet:
        """All events that the edge has committed, done or failed."""
        query = select(leases.c.committed).where(leases.c.task_id == task_id, leases.c.edge == edge)
        texts = (await self._connection.execute(query)).scalars()
        return IntervalSet.of(r for text in texts for r in load_events(text).ranges())

    async def edges_of(self, task_id: int) -> list[str]:
        """Names of the edges that hold or have held a lease of the task."""
        query = select(leases.c.edge).where(leases.c.task_id == task_id).distinct()
        return list((await self._connection.execute(query.order_by(leases.c.edge))).scalars())


class Failures:
    """Events set aside for good."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, failures: Collection[tuple[int, FailedEvent, History]]) -> None:
        """Insert newly failed events of tasks, each with all its failures."""
        rows = [
            {
                "task_id": task_id,
                "event": f.event,
                "error": f.error,
                "attempts": f.attempts,
                "history": dump_history(history) if history else None,
            }
            for task_id, f, history in failures
        ]
        if rows:
            await self._connection.execute(insert(failed_events), rows)

    async def page(self, task_id: int, *, after: int | None, limit: int) -> list[ListedFailure]:
        """Failed events of a task by number, those behind ``after``."""
        t = failed_events.c
        query = select(failed_events).where(t.task_id == task_id).order_by(t.event)
        if after is not None:
            query = query.where(t.event > after)
        rows = await self._connection.execute(query.limit(limit))
        return [
            listed(event=r.event, error=r.error, attempts=r.attempts, history=load_history(r.history))
            for r in rows
        ]

    async def clear(self, task_id: int) -> None:
        """No event of the task is set aside any more."""
        await self._connection.execute(delete(failed_events).where(failed_events.c.task_id == task_id))

    async def numbers(self, task_id: int) -> IntervalSet:
        """All failed events of a task."""
        query = select(failed_events.c.event).where(failed_events.c.task_id == task_id)
        return single_events((await self._connection.execute(query)).scalars())


def _overdue(now: float) -> tuple[ColumnElement[bool], ...]:
    """Their time is up, and somebody was there with whom they could have been renewed."""
    away = select(pulse.c.beat).where(pulse.c.beat < now - AWAY_SECONDS).exists()
    return leases.c.is_open.is_(True), leases.c.expires <= now, ~away


def _lease(row: Row[tuple[object, ...]]) -> EventLease:
    return EventLease(
        epoch=row.epoch,
        holder=row.edge,
        granted=load_events(row.granted),
        outstanding=load_events(row.outstanding),
        committed=load_events(row.committed),
        expires=row.expires,
    )
