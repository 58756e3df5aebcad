"""What was used, in the database: counted once, by day, site and task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, String, cast, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.store.accounting_tables import usage, usage_reports, usage_tasks
from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import is_id
from hpcpanda.dispatcher.store.identity_tables import task_teams
from hpcpanda.dispatcher.store.tables import leases, tasks
from hpcpanda.dispatcher.store.upsert import upsert
from hpcpanda.domain.usage import AMOUNTS, Amounts, TaskUsage, UsageBy

_KEYS: dict[UsageBy, ColumnElement[str]] = {
    UsageBy.TASK: cast(usage.c.task_id, String),
    UsageBy.USER: usage_tasks.c.owner,
    UsageBy.GROUP: usage_tasks.c.team,
    UsageBy.SITE: usage.c.edge,
    UsageBy.DAY: cast(usage.c.day, String),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What belongs together in a report."""

    key: str
    name: str
    amounts: Amounts


class Accounting:
    """What tasks have used."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def last_report(self, edge: str, instance: str) -> int:
        """Number of the last report of an edge instance that was counted; 0 before the first."""
        r = usage_reports.c
        query = select(r.sequence).where(r.edge == edge, r.instance == instance)
        return (await self._connection.execute(query)).scalar_one_or_none() or 0

    async def count(
        self, edge: str, instance: str, sequence: int, said: Collection[TaskUsage], *, day: int
    ) -> None:
        """Count a report: of tasks that the edge has to do with. Expects that it was not counted before."""
        known = await self._known(edge, {use.task_id for use in said if is_id(use.task_id)})
        rows: dict[int, Amounts] = {}
        for use in said:
            if use.task_id in known:
                rows[use.task_id] = rows.get(use.task_id, Amounts()).plus(use.amounts)
        await upsert(
            self._connection,
            usage,
            [
                {"day": day, "edge": edge, "task_id": task_id, **_columns(amounts)}
                for task_id, amounts in rows.items()
            ],
            adds=AMOUNTS,
        )
        report = {"edge": edge, "instance": instance, "sequence": sequence}
        await upsert(self._connection, usage_reports, [report], changes=("sequence",))

    async def _known(self, edge: str, task_ids: Collection[int]) -> set[int]:
        """Those tasks of which the edge was ever given some. Whose they are is noted with the first report."""
        known: set[int] = set()
        u, t = usage.c, tasks.c
        for portion in chunks(sorted(task_ids)):
            before = select(u.task_id).where(u.task_id.in_(portion), u.edge == edge).distinct()
            known |= set((await self._connection.execute(before)).scalars())
            new = [task_id for task_id in portion if task_id not in known]
            held = select(leases.c.task_id).where(leases.c.task_id == t.task_id, leases.c.edge == edge)
            query = (
                select(t.task_id, t.owner, t.name, func.coalesce(task_teams.c.team, "").label("team"))
                .outerjoin(task_teams, task_teams.c.task_id == t.task_id)
                .where(t.task_id.in_(new), held.exists())
            )
            found = [dict(row) for row in (await self._connection.execute(query)).mappings()] if new else []
            await upsert(self._connection, usage_tasks, found, changes=("name",))
            known |= {row["task_id"] for row in found}
        return known

    async def lines(
        self, by: UsageBy, *, first: int, last: int, sight: Sight | None, limit: int
    ) -> list[Line]:
        """What was used from a day to a day, that included, as far as somebody sees it: days in order, others by
        what they held, most first."""
        key = _KEYS[by]
        name = func.max(usage_tasks.c.name) if by is UsageBy.TASK else literal("")
        order = (key,) if by is UsageBy.DAY else (func.sum(usage.c.held_s).desc(), key)
        query = select(key.label("key"), name.label("title"), *_sums()).group_by(key).order_by(*order)
        rows = await self._connection.execute(_seen(query, first, last, sight).limit(limit))
        return [Line(key=row.key, name=row.title, amounts=_amounts(row)) for row in rows]

    async def total(self, by: UsageBy, *, first: int, last: int, sight: Sight | None) -> tuple[int, Amounts]:
        """How many lines there are, and all of them together."""
        query = select(func.count(_KEYS[by].distinct()).label("lines"), *_sums())
        row = (await self._connection.execute(_seen(query, first, last, sight))).one()
        return row.lines, _amounts(row)


def _columns(amounts: Amounts) -> dict[str, float]:
    return {name: float(getattr(amounts, name)) for name in AMOUNTS}


def _sums() -> list[ColumnElement[float]]:
    return [func.coalesce(func.sum(usage.c[name]), 0.0).label(name) for name in AMOUNTS]


def _amounts(row: Row[tuple[object, ...]]) -> Amounts:
    values = {name: getattr(row, name) for name in AMOUNTS}
    return Amounts(**values | {"done": int(values["done"]), "failed": int(values["failed"])})


def _seen(
    query: Select[*tuple[Any, ...]], first: int, last: int, sight: Sight | None
) -> Select[*tuple[Any, ...]]:
    query = query.select_from(usage).join(usage_tasks, usage_tasks.c.task_id == usage.c.task_id)
    query = query.where(usage.c.day >= first, usage.c.day <= last)
    if sight is None:
        return query
    theirs = usage_tasks.c.team.in_(sorted(sight.groups))
    return query.where(or_(usage_tasks.c.owner == sight.name, theirs))
