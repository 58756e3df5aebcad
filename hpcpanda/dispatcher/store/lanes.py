"""Lanes in the database: who waits, for what, since when; and what has been used."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.accounts import account_of
from hpcpanda.dispatcher.store.brokerage_tables import lane_usage, lanes
from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.dispatcher.store.upsert import upsert
from hpcpanda.dispatcher.store.wanted import Kind, wanted_values
from hpcpanda.domain.errors import CorruptData, TooLarge
from hpcpanda.domain.exchange import Capacity
from hpcpanda.domain.requirements import Requirements
from hpcpanda.domain.states import TaskState

MAX_LANES_OF_USER = 200
"""Most lanes of one user: in so many ways may the demands of the tasks that a user has ever submitted differ."""
_REQUIREMENTS: TypeAdapter[Requirements] = TypeAdapter(Requirements)
_OPEN = (TaskState.READY, TaskState.SCOUTING, TaskState.RUNNING)
_HAS_READY = tasks.c.ready > literal_column("0")
"""Written so that it is the very condition of the partial indexes."""
_HAS_LEASED = tasks.c.leased > literal_column("0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A lane in which something waits."""

    lane_id: int
    owner: str
    group: str | None
    requirements: Requirements
    oldest: float
    """When that of its tasks which has waited longest was last served; Unix seconds."""
    highest: int
    """Highest priority of its tasks."""
    nearest: float | None
    """Nearest deadline of its tasks."""


class Lanes:
    """Lanes of all tasks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, *, owner: str, group: str | None, requirements: Requirements) -> int:
        """The lane in which such a task waits; made when there is none yet.

        Raises:
            TooLarge: the user has too many already.
        """
        text = _REQUIREMENTS.dump_json(requirements).decode()
        row = {"owner": owner, "task_group": group or "", "digest": hashlib.sha256(text.encode()).hexdigest()}
        same = select(lanes.c.lane_id).where(*(lanes.c[name] == value for name, value in row.items()))
        found = (await self._connection.execute(same)).scalar_one_or_none()
        if found is not None:
            return int(found)
        count = select(func.count()).where(lanes.c.owner == owner)
        if (await self._connection.execute(count)).scalar_one() >= MAX_LANES_OF_USER:
            raise TooLarge(
                f"{owner} has submitted tasks of {MAX_LANES_OF_USER} different groups and requirements; "
                "use requirements of an earlier task"
            )
        key = (
            await self._connection.execute(insert(lanes).values(row | {"requirements": text}))
        ).inserted_primary_key
        assert key is not None, "the database numbers lanes"
        return int(key[0])

    async def waiting(self) -> list[Lane]:
        """Lanes in which something is ready."""
        return [
            Lane(
                lane_id=row.lane_id,
                owner=row.owner,
                group=row.task_group or None,
                requirements=_load(row.requirements),
                oldest=row.oldest,
                highest=row.highest,
                nearest=row.nearest,
            )
            for row in await self._connection.execute(_WAITING)
        ]

    async def requirements(self, lane_ids: Collection[int]) -> dict[int, Requirements]:
        """What tasks of lanes demand of sites."""
        found: dict[int, Requirements] = {}
        for portion in chunks(lane_ids):
            query = select(lanes.c.lane_id, lanes.c.requirements).where(lanes.c.lane_id.in_(portion))
            for lane_id, text in await self._connection.execute(query):
                found[lane_id] = _load(text)
        return found

    async def candidates(
        self, among: Collection[Lane], capacity: Capacity | None, *, each: int, long_before: float
    ) -> list[Account]:
        """Tasks that may come first in their lanes, as far as the edge wants them: those of highest priority, those
        with the nearest deadlines, and those that have waited longest, as far as since ``long_before``.

        Args:
            among: the lanes.
            capacity: what the edge wants; anything when None.
            each: most tasks of each kind and lane.
            long_before: Unix seconds.
        """
        if not among:
            return []
        heads = tuple((lane.oldest <= long_before, lane.nearest is not None) for lane in among)
        query = _candidates(heads, None if capacity is None else Kind.of(capacity))
        values: dict[str, object] = {} if capacity is None else wanted_values(capacity)
        values |= {f"lane_{n}": lane.lane_id for n, lane in enumerate(among)}
        values |= {"each": each, "long_before": long_before}
        return [account_of(row) for row in await self._connection.execute(query, values)]

    async def charge(self, used: Mapping[int, float], now: float) -> None:
        """Add core-seconds to what lanes have used."""
        rows = [
            {"lane_id": lane_id, "hour": int(now // 3600), "core_seconds": amount}
            for lane_id, amount in used.items()
            if amount > 0
        ]
        await upsert(self._connection, lane_usage, rows, adds=("core_seconds",))

    async def used(self, since_hour: int) -> list[tuple[str, str | None, int, float]]:
        """``(owner, group, hour, core-seconds)`` from an hour on."""
        u = lane_usage.c
        query = (
            select(lanes.c.owner, lanes.c.task_group, u.hour, func.sum(u.core_seconds))
            .join(lanes, lanes.c.lane_id == u.lane_id)
            .where(u.hour >= since_hour)
            .group_by(lanes.c.owner, lanes.c.task_group, u.hour)
        )
        return [(o, g or None, hour, amount) for o, g, hour, amount in await self._connection.execute(query)]

    async def in_work(self) -> list[tuple[str, str | None, float]]:
        """``(owner, group, core-seconds)`` of what is leased: as measured of each task, else as it was guessed."""
        query = (
            select(lanes.c.owner, lanes.c.task_group, func.sum(tasks.c.leased * _cost()))
            .join(lanes, lanes.c.lane_id == tasks.c.lane_id)
            .where(_HAS_LEASED)
            .group_by(lanes.c.owner, lanes.c.task_group)
        )
        return [(o, g or None, float(amount)) for o, g, amount in await self._connection.execute(query)]

    async def forget(self, before_hour: int) -> None:
        """Drop what was used before an hour."""
        await self._connection.execute(delete(lane_usage).where(lane_usage.c.hour < before_hour))


def _waiting() -> Select[Any]:
    t = tasks.c
    here = (t.lane_id == lanes.c.lane_id, _HAS_READY)
    found = select(
        lanes,
        select(func.min(t.served)).where(*here).scalar_subquery().label("oldest"),
        select(func.max(t.priority)).where(*here).scalar_subquery().label("highest"),
        select(func.min(t.deadline)).where(*here, t.deadline.is_not(None)).scalar_subquery().label("nearest"),
    ).subquery()
    return select(found).where(found.c.oldest.is_not(None))


_WAITING = _waiting()


@lru_cache(maxsize=512)
def _candidates(heads: tuple[tuple[bool, bool], ...], kind: Kind | None) -> Select[Any]:
    """The query for the tasks that may come first in lanes.

    Args:
        heads: of each lane, whether some of its tasks have waited long, and whether some have deadlines.
        kind: what is wanted; anything when None.
    """
    t = tasks.c
    conditions = (_HAS_READY, t.state.in_(_OPEN), *(kind.conditions() if kind is not None else ()))
    firsts: list[Select[tuple[int]]] = []
    for n, (has_waited, has_deadline) in enumerate(heads):
        here = (
            select(t.task_id).where(t.lane_id == bindparam(f"lane_{n}"), *conditions).limit(bindparam("each"))
        )
        firsts.append(here.order_by(t.priority.desc(), t.task_id))
        if has_waited:
            waited = here.where(t.served <= bindparam("long_before"))
            firsts.append(waited.order_by(t.served, t.task_id))
        if has_deadline:
            firsts.append(here.where(t.deadline.is_not(None)).order_by(t.deadline, t.task_id))
    first = union_all(*(select(one.subquery().c.task_id) for one in firsts)).subquery()
    return select(tasks).where(t.task_id.in_(select(first.c.task_id)))


def _cost() -> ColumnElement[float]:
    """Core-seconds of an event or job; of a job of which nothing is known, half its walltime on all its cores."""
    t = tasks.c
    unknown = func.coalesce(t.guess, t.job_cores * t.job_nodes * t.job_walltime_s / 2, 1.0)
    return case(((t.done > 0) & (t.core_seconds > 0), t.core_seconds / t.done), else_=unknown)


@lru_cache(maxsize=1024)
def _load(text: str) -> Requirements:
    try:
        return _REQUIREMENTS.validate_json(text)
    except ValueError as error:
        raise CorruptData(f"stored requirements are damaged: {error}") from error
