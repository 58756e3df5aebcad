"""What brokerage knows of sites and links, and what it has decided, in the database."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Row,
    Select,
    Update,
    bindparam,
    literal,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.brokerage.broker import SiteState
from hpcpanda.brokerage.matching import SiteTraits
from hpcpanda.brokerage.network import Data, Link
from hpcpanda.dispatcher.store.brokerage_tables import broker_notes, links, sites, task_data
from hpcpanda.dispatcher.store.catalogue_tables import dataset_sites, datasets
from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import dump_why, load_room, load_why
from hpcpanda.dispatcher.store.tables import edges, tasks
from hpcpanda.dispatcher.store.upsert import upsert, upsert_found
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task_views import EdgeReason
from hpcpanda.domain.why import Why

_FINAL = tuple(state for state in TaskState if state.final)
_ALL = ""
_SITES = select(sites, edges.c.cores, edges.c.room).join(edges, edges.c.name == sites.c.edge)
_LATEST = _SITES.order_by(sites.c.asked.desc(), sites.c.edge).limit(bindparam("most"))
_ONE = _SITES.where(sites.c.edge == bindparam("one"))
_HUNGRY = _LATEST.where(sites.c.hungry.is_(True), sites.c.asked >= bindparam("since"))
_ALIVE = _LATEST.where(edges.c.last_seen >= bindparam("since"))
_THIS = update(sites).where(sites.c.edge == bindparam("this"))
_KEPT: ColumnElement[float] = bindparam("kept", type_=Float)
_FINISHED = _THIS.values(
    failure_rate=sites.c.failure_rate * _KEPT + bindparam("added", type_=Float), committed=bindparam("now")
)
_DATA = select(task_data).where(task_data.c.task_id.in_(bindparam("named", expanding=True)))
"""The place that stands for all of a task's inputs."""


class Sites:
    """Sites of edges as brokerage knows them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def register(self, edge: str, architecture: str | None, tags: Sequence[str]) -> None:
        """Note what a site is and has; what is known of how it does stays."""
        row = {"edge": edge, "architecture": architecture, "tags": json.dumps(sorted(tags)), "asked": 0.0}
        row |= {"hungry": False, "granted": 0.0, "committed": 0.0, "failure_rate": 0.0, "queue_wait_s": 0.0}
        await upsert(self._connection, sites, [row], changes=("architecture", "tags"))

    async def get(self, edge: str) -> SiteState | None:
        """The site of an edge, if it has registered."""
        return next(iter(await self._find(_ONE, one=edge)), None)

    async def hungry(self, since: float, *, limit: int) -> list[SiteState]:
        """Sites that got less than they wanted when they last asked, not before ``since``; latest first."""
        return await self._find(_HUNGRY, since=since, most=limit)

    async def alive(self, since: float, *, limit: int) -> list[SiteState]:
        """Sites whose edges were heard of after ``since``; those that asked latest first."""
        return await self._find(_ALIVE, since=since, most=limit)

    async def silent(self, since: float, *, limit: int) -> list[str]:
        """Edges that have got something and finished nothing after ``since``, nor got more."""
        query = (
            select(sites.c.edge)
            .where(sites.c.granted > sites.c.committed, sites.c.granted < since)
            .order_by(sites.c.granted)
            .limit(limit)
        )
        return list((await self._connection.execute(query)).scalars())

    async def note(self, edge: str, **values: object) -> None:
        """Change what is known of how a site does."""
        await self._connection.execute(_noting(tuple(values)), {"this": edge, **values})

    async def finished(self, edge: str, *, failing: float, kept: float, now: float) -> None:
        """Note that a site has finished something, of which a part was failing; of the failure rate known before, a part
        is kept."""
        values = {"this": edge, "kept": kept, "added": failing * (1.0 - kept), "now": now}
        await self._connection.execute(_FINISHED, values)

    async def _find(self, query: Select[Any], **values: object) -> list[SiteState]:
        return [_site(row) for row in await self._connection.execute(query, values)]


class Links:
    """Throughput from site to site."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def into(self, *destinations: str) -> dict[tuple[str, str], Link]:
        """What is known of the ways to sites."""
        query = select(links).where(links.c.destination.in_(destinations))
        return {
            (row.source, row.destination): Link(bytes_per_s=row.bytes_per_s, seen=row.seen)
            for row in await self._connection.execute(query)
        }

    async def save(self, known: Mapping[tuple[str, str], Link]) -> None:
        """Write what has been learnt."""
        rows = [
            {"source": s, "destination": d, "bytes_per_s": link.bytes_per_s, "seen": link.seen}
            for (s, d), link in known.items()
        ]
        await upsert(self._connection, links, rows, changes=("bytes_per_s", "seen"))


class TaskData:
    """Where the inputs of tasks are."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put(self, task_id: int, data: Data) -> None:
        """Note where the inputs of a task are, beside what was noted: they are taken away nowhere. Inputs without places are
        nowhere in particular and are not noted."""
        if data.at is not None:
            sizes = {_ALL: data.size, **data.at}
            rows = [{"task_id": task_id, "place": place, "size": size} for place, size in sizes.items()]
            await upsert(self._connection, task_data, rows, changes=("size",))

    async def follow(self, dataset_id: int) -> None:
        """Note of all tasks that read a dataset and have not ended where its files are now: there are more copies of them."""
        t, d, s = tasks.c, datasets.c, dataset_sites.c
        reads = (t.dataset_id == dataset_id, t.state.not_in(_FINAL))
        whole = select(t.task_id, literal(_ALL).label("place"), d.size)
        whole = whole.join_from(tasks, datasets, d.dataset_id == t.dataset_id).where(*reads)
        copies = select(t.task_id, s.site, s.size)
        copies = copies.join_from(tasks, dataset_sites, s.dataset_id == t.dataset_id).where(*reads)
        both = union_all(whole, copies).subquery()
        found = select(both).where(true()).order_by(both.c.task_id, both.c.place)
        await upsert_found(self._connection, task_data, found, changes=("size",))

    async def of_tasks(self, task_ids: Collection[int]) -> dict[int, Data]:
        """Inputs of those of the tasks of which it is known where they are."""
        places: dict[int, dict[str, int]] = defaultdict(dict)
        for portion in chunks(task_ids):
            for row in await self._connection.execute(_DATA, {"named": portion}):
                places[row.task_id][row.place] = row.size
        return {task_id: Data(size=at.pop(_ALL), at=at) for task_id, at in places.items()}


class BrokerNotes:
    """What brokerage last decided of tasks and edges."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put(self, edge: str, whys: Mapping[int, Why], now: float) -> None:
        """Note decisions about tasks."""
        rows = [
            {"task_id": task_id, "edge": edge, "why": dump_why(why), "noted": now}
            for task_id, why in whys.items()
        ]
        await upsert(self._connection, broker_notes, rows, changes=("why", "noted"))

    async def of_task(self, task_id: int, *, now: float, limit: int) -> list[EdgeReason]:
        """Decisions about a task, latest first."""
        t = broker_notes.c
        query = select(t.edge, t.why, t.noted).where(t.task_id == task_id).order_by(t.noted.desc(), t.edge)
        return [
            EdgeReason(edge=row.edge, why=load_why(row.why), ago_s=max(0.0, now - row.noted))
            for row in await self._connection.execute(query.limit(limit))
        ]


@cache
def _noting(names: tuple[str, ...]) -> Update:
    return _THIS.values({name: bindparam(name) for name in names})


def _site(row: Row[tuple[object, ...]]) -> SiteState:
    return SiteState(
        traits=SiteTraits(
            name=row.edge,
            architecture=row.architecture,
            tags=frozenset(json.loads(row.tags)),
            room=load_room(row.room),
        ),
        asked=row.asked,
        hungry=row.hungry,
        granted=row.granted,
        committed=row.committed,
        failure_rate=row.failure_rate,
        queue_wait_s=row.queue_wait_s,
        quarantined_until=row.quarantined_until,
    )
