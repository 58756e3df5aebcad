"""Tasks that grow with the dataset that they read, in the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.catalogue_tables import dataset_files, dataset_tasks, datasets
from hpcpanda.dispatcher.store.chains_tables import growing_tasks
from hpcpanda.dispatcher.store.service_tables import archived_tasks
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.domain.states import TaskState

_FINAL = tuple(state for state in TaskState if state.final)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A task that writes a dataset."""

    task_id: int
    state: TaskState


class Chains:
    """Tasks that grow, and tasks that write what these read."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, task_id: int, dataset_id: int, *, if_abandoned: str) -> None:
        """Note that a task grows with a dataset."""
        row = {"task_id": task_id, "dataset_id": dataset_id, "if_abandoned": if_abandoned}
        await self._connection.execute(insert(growing_tasks).values(row))

    async def drop(self, task_id: int) -> None:
        """Note that it grows no more."""
        await self._connection.execute(delete(growing_tasks).where(growing_tasks.c.task_id == task_id))

    async def due(self, limit: int) -> list[int]:
        """Tasks with something to take in, by number: files have come, the dataset was closed, or nobody writes it any
        more and that matters to the task."""
        g, d = growing_tasks.c, datasets.c
        grown: ColumnElement[bool] = or_(d.events > tasks.c.total, d.is_open.is_(False))
        left = and_(g.if_abandoned != "wait", _writers(g.dataset_id).exists())
        left = and_(left, ~_writers(g.dataset_id, at_work=True).exists())
        query = (
            select(g.task_id)
            .join(tasks, tasks.c.task_id == g.task_id)
            .join(datasets, d.dataset_id == g.dataset_id)
            .where(tasks.c.state.not_in(_FINAL), or_(grown, left))
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

    async def policy(self, task_id: int) -> str:
        """What a task that grows does when nobody writes its dataset any more."""
        query = select(growing_tasks.c.if_abandoned).where(growing_tasks.c.task_id == task_id)
        return str((await self._connection.execute(query)).scalar_one())

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
