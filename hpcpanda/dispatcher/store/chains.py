"""Tasks that grow with the dataset that they read, in the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.catalogue_tables import dataset_files, dataset_tasks, datasets
from hpcpanda.dispatcher.store.chains_tables import growing_tasks
from hpcpanda.dispatcher.store.service_tables import archived_tasks
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.domain.states import TaskState

_FINAL = tuple(state for state in TaskState if state.final)
CAN_GROW = (
    *(TaskState.PENDING, TaskState.READY, TaskState.SCOUTING),
    *(TaskState.RUNNING, TaskState.PAUSED),
)
"""A task in any of these takes in what comes. What is being merged is not changed any more: its user may have the rest read
when that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What ties a task to the dataset that it grows with."""

    if_abandoned: str
    """What it does when nobody writes the dataset any more."""
    seen: int
    """Events that the dataset had when it last looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A task that writes a dataset."""

    task_id: int
    state: TaskState


class Chains:
    """Tasks that grow, and tasks that write what these read."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, task_id: int, dataset_id: int, *, if_abandoned: str, seen: int) -> None:
        """Note that a task grows with a dataset, of which it has taken in so many events."""
        row = {"task_id": task_id, "dataset_id": dataset_id, "if_abandoned": if_abandoned, "seen": seen}
        await self._connection.execute(insert(growing_tasks).values(row))

    async def link(self, task_id: int) -> Link | None:
        """What ties a task to its dataset; None of one that does not grow."""
        query = select(growing_tasks).where(growing_tasks.c.task_id == task_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else Link(if_abandoned=row.if_abandoned, seen=row.seen)

    async def saw(self, task_id: int, events: int) -> None:
        """Note how many events the dataset of a task has."""
        statement = update(growing_tasks).where(growing_tasks.c.task_id == task_id)
        await self._connection.execute(statement.values(seen=events))

    async def due(self, limit: int) -> list[int]:
        """Tasks with something to take in, by number: files have come, the dataset was closed, or opened again, or nobody
        writes it any more and that matters to the task."""
        t, g, d = tasks.c, growing_tasks.c, datasets.c
        left = and_(g.if_abandoned != "wait", _writers(g.dataset_id).exists())
        left = and_(left, ~_writers(g.dataset_id, at_work=True).exists())
        grows = and_(t.growing.is_(True), or_(d.is_open.is_(False), left))
        again = and_(t.growing.is_(False), d.is_open.is_(True), ~left)
        query = (
            select(g.task_id)
            .join(tasks, t.task_id == g.task_id)
            .join(datasets, d.dataset_id == g.dataset_id)
            .where(t.state.in_(CAN_GROW), or_(d.events > g.seen, grows, again))
            .order_by(g.task_id)
            .limit(limit)
        )
        return list((await self._connection.execute(query)).scalars())

    async def is_abandoned(self, dataset_id: int) -> bool:
        """Whether tasks have written a dataset, and all of them have ended."""
        writers = select(dataset_tasks.c.task_id).where(dataset_tasks.c.dataset_id == dataset_id)
        at_work = writers.join(tasks, tasks.c.task_id == dataset_tasks.c.task_id)
        at_work = at_work.where(tasks.c.state.not_in(_FINAL))
        query = select(writers.exists(), at_work.exists())
        some, working = (await self._connection.execute(query)).one()
        return bool(some) and not working

    async def files_before(self, dataset_id: int, event: int) -> int:
        """Files of a dataset that begin before an event."""
        t = dataset_files.c
        query = select(func.count()).where(t.dataset_id == dataset_id, t.first < event)
        return int((await self._connection.execute(query)).scalar_one())

    async def writers(self, dataset_id: int, *, limit: int) -> Sequence[Writer]:
        """Tasks that write a dataset, newest first, also those put away."""
        t = dataset_tasks.c
        found: list[Writer] = []
        for table in (tasks, archived_tasks):
            query = (
                select(table.c.task_id, table.c.state)
                .join(dataset_tasks, t.task_id == table.c.task_id)
                .where(t.dataset_id == dataset_id)
                .order_by(t.task_id.desc())
                .limit(limit)
            )
            rows = await self._connection.execute(query)
            found += [Writer(task_id=task_id, state=TaskState(state)) for task_id, state in rows]
        return sorted(found, key=lambda writer: -writer.task_id)[:limit]

    async def read_by_writers(self, dids: Collection[str]) -> set[str]:
        """The datasets that are read by those tasks which still write one of these; all named ``scope:name``."""
        parts = [did.partition(":") for did in dids]
        named = [and_(datasets.c.scope == scope, datasets.c.name == name) for scope, _, name in parts]
        query = (
            select(dataset_tasks.c.source)
            .join(datasets, datasets.c.dataset_id == dataset_tasks.c.dataset_id)
            .join(tasks, tasks.c.task_id == dataset_tasks.c.task_id)
            .where(or_(*named), dataset_tasks.c.source.is_not(None), tasks.c.state.not_in(_FINAL))
        )
        return {str(source) for source in (await self._connection.execute(query)).scalars()}


def _writers(dataset_id: ColumnElement[int], *, at_work: bool = False) -> Select[tuple[int]]:
    """Tasks that write a dataset; ``at_work``: those that have not ended."""
    t = dataset_tasks.alias().c
    query = select(t.task_id).where(t.dataset_id == dataset_id)
    if at_work:
        writer = tasks.alias().c
        query = query.where(
            select(writer.task_id).where(writer.task_id == t.task_id, writer.state.not_in(_FINAL)).exists()
        )
    return query
