"""Tasks that came to an end long ago, in the database."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pydantic import TypeAdapter
from sqlalchemy import Column, Select, Table, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import is_id
from hpcpanda.dispatcher.store.identity import in_sight
from hpcpanda.dispatcher.store.service_tables import archived_tasks
from hpcpanda.dispatcher.store.tables import (
    activity,
    leases,
    metadata,
    ready_ranges,
    reasons,
    task_specs,
    tasks,
)
from hpcpanda.domain.errors import CorruptData, NotFound
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.failures import ListedFailure
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task_views import Explanation, Task

MAX_FAILURES = 10_000
"""A task with more failed events is not put away: all of them would stand in one row."""

_FINAL = tuple(state for state in TaskState if state.final)
_OF_EDGES = (leases, ready_ranges, activity, reasons)
"""What only edges need, in messages about a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDetails:
    """What is told of a task besides the task itself."""

    outputs: tuple[OutputFile, ...]
    failures: tuple[ListedFailure, ...]
    explanation: Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTask:
    """A final task, and when it became so."""

    task_id: int
    ended: float


_TASK: TypeAdapter[Task] = TypeAdapter(Task)
_DETAILS: TypeAdapter[TaskDetails] = TypeAdapter(TaskDetails)


class Archive:
    """Tasks put away, and those that are to be."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, task_id: int) -> Task:
        """A task that was put away.

        Raises:
            NotFound: there is none of that number.
        """
        return _load_task(await self._text(select(archived_tasks.c.task), task_id))

    async def details(self, task_id: int) -> TaskDetails:
        """What else was told of it.

        Raises:
            NotFound: there is none of that number.
        """
        text = await self._text(select(archived_tasks.c.details), task_id)
        try:
            return _DETAILS.validate_json(text)
        except ValueError as error:
            raise CorruptData(f"the archive of task {task_id} is damaged: {error}") from error

    async def page(
        self,
        *,
        state: TaskState | None,
        name: str | None,
        owner: str | None,
        sight: Sight | None,
        limit: int,
        after: int | None,
    ) -> list[Task]:
        """Tasks put away, newest first, of those older than ``after``."""
        t = archived_tasks.c
        query = select(t.task).order_by(t.task_id.desc()).limit(limit)
        query = query.where(*in_sight(t.task_id, t.owner, sight))
        for column, value in ((t.state, state), (t.name, name), (t.owner, owner)):
            if value is not None:
                query = query.where(column == value)
        if after is not None:
            query = query.where(t.task_id < after)
        return [_load_task(text) for text in (await self._connection.execute(query)).scalars()]

    async def states(self, task_ids: Collection[int]) -> dict[int, TaskState]:
        """How tasks ended, those of the numbers that were put away."""
        found: dict[int, TaskState] = {}
        t = archived_tasks.c
        for portion in chunks(sorted(filter(is_id, task_ids))):
            query = select(t.task_id, t.state).where(t.task_id.in_(portion))
            for task_id, state in await self._connection.execute(query):
                found[task_id] = TaskState(state)
        return found

    async def ended(self, *, after: float, before: float, limit: int) -> list[EndedTask]:
        """Tasks that came to an end in this time, the first to end first."""
        t = tasks.c
        query = (
            select(t.task_id, t.updated)
            .where(t.state.in_(_FINAL), t.updated > after, t.updated < before, t.failed <= MAX_FAILURES)
            .order_by(t.updated)
            .limit(limit)
        )
        rows = await self._connection.execute(query)
        return [EndedTask(task_id=task_id, ended=updated) for task_id, updated in rows]

    async def prune(self, task_ids: Collection[int]) -> None:
        """Forget what only edges need of these tasks."""
        for table in _OF_EDGES:
            await self._connection.execute(delete(table).where(table.c.task_id.in_(task_ids)))

    async def put(self, task: Task, details: TaskDetails, *, now: float) -> None:
        """Put a task away: one row is left of all its rows."""
        key = select(task_specs.c.idempotency_key).where(task_specs.c.task_id == task.task_id)
        row = {
            "task_id": task.task_id,
            "owner": task.owner,
            "name": task.spec.name,
            "state": task.state,
            "idempotency_key": (await self._connection.execute(key)).scalar_one(),
            "archived": now,
            "task": _TASK.dump_json(task).decode(),
            "details": _DETAILS.dump_json(details).decode(),
        }
        await self._connection.execute(insert(archived_tasks).values(row))
        for table, column in tables_of_a_task():
            await self._connection.execute(delete(table).where(column == task.task_id))
        await self._connection.execute(delete(tasks).where(tasks.c.task_id == task.task_id))

    async def _text(self, query: Select[str], task_id: int) -> str:
        found = query.where(archived_tasks.c.task_id == task_id)
        text = (await self._connection.execute(found)).scalar_one_or_none()
        if text is None:
            raise NotFound(f"there is no task {task_id}")
        return text


def tables_of_a_task() -> Iterator[tuple[Table, Column[int]]]:
    """Every table that refers to tasks, with the column that does: its rows go when the task is put away."""
    for table in metadata.sorted_tables:
        for key in table.foreign_keys:
            if key.column is tasks.c.task_id:
                yield table, key.parent


def _load_task(text: str) -> Task:
    try:
        return _TASK.validate_json(text)
    except ValueError as error:
        raise CorruptData(f"an archived task is damaged: {error}") from error
