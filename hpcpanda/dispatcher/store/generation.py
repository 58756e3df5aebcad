"""How tasks are cut into jobs, in the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import TypeAdapter
from sqlalchemy import bindparam, insert, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.accounts import account_of
from hpcpanda.dispatcher.store.generation_tables import generation, job_bounds
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.scouting import JobMeasure
from hpcpanda.domain.splitting import Cut
from hpcpanda.domain.states import TaskState

JOBS_A_ROW = 5000
"""Jobs of which one row tells the boundaries."""

_AT_WORK = (TaskState.SCOUTING, TaskState.RUNNING)
_T = TypeVar("_T")
_PLAN: TypeAdapter[tuple[Cut, ...]] = TypeAdapter(tuple[Cut, ...])
_MEASURED: TypeAdapter[tuple[JobMeasure, ...]] = TypeAdapter(tuple[JobMeasure, ...])
_BOUNDS: TypeAdapter[list[int]] = TypeAdapter(list[int])
_CHANGE = (
    update(generation)
    .where(generation.c.task_id == bindparam("key"))
    .values(plan=bindparam("plan"), measured=bindparam("measured"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """How a task's jobs are made."""

    scouts: int = 0
    """Jobs that are run alone first."""
    most_jobs: int
    """Most that it can have; how many it has, once that is decided."""
    plan: tuple[Cut, ...] = ()
    """Cuts, in the order of their jobs; none where the jobs are not slices of anything."""
    measured: tuple[JobMeasure, ...] = ()
    """What finished scouts have used."""

    @property
    def jobs(self) -> int:
        """Jobs that are cut so far."""
        return self.plan[-1].end_job if self.plan else 0


class Generation:
    """Cuts, boundaries and scouts of all tasks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, task_id: int, made: Made) -> None:
        """Insert those of a new task."""
        await self._connection.execute(
            insert(generation).values(
                task_id=task_id,
                scouts=made.scouts,
                most_jobs=made.most_jobs,
                plan=_dump(_PLAN, made.plan),
                measured="[]",
            )
        )

    async def get(self, task_id: int) -> Made:
        """Those of a task that has some."""
        query = select(generation).where(generation.c.task_id == task_id)
        row = (await self._connection.execute(query)).one()
        try:
            return Made(
                scouts=row.scouts,
                most_jobs=row.most_jobs,
                plan=_PLAN.validate_json(row.plan),
                measured=_MEASURED.validate_json(row.measured),
            )
        except ValueError as error:
            raise CorruptData(f"how task {task_id} is cut into jobs is damaged: {error}") from error

    async def change(self, task_id: int, made: Made) -> None:
        """Write cuts and measurements."""
        row = {
            "key": task_id,
            "plan": _dump(_PLAN, made.plan),
            "measured": _dump(_MEASURED, made.measured),
        }
        await self._connection.execute(_CHANGE, row)

    async def note(self, task_id: int, measured: Iterable[JobMeasure]) -> None:
        """Add what scouts have used; of one of which it is known already, nothing."""
        made = await self.get(task_id)
        known = {m.job: m for m in measured} | {m.job: m for m in made.measured}
        await self.change(task_id, replace(made, measured=tuple(known[job] for job in sorted(known))))

    async def scouting(self, *, after: int, limit: int) -> list[Account]:
        """Tasks of which scouts run, by number, behind ``after``."""
        t = tasks.c
        query = select(tasks).where(t.scouts > literal_column("0"), t.state.in_(_AT_WORK), t.task_id > after)
        rows = await self._connection.execute(query.order_by(t.task_id).limit(limit))
        return [account_of(row) for row in rows]

    async def put_bounds(self, task_id: int, cut: Cut, bounds: Sequence[int]) -> None:
        """Keep where the jobs of a cut begin."""
        rows = []
        for at in range(0, len(bounds), JOBS_A_ROW):
            part = [*bounds[at : at + JOBS_A_ROW + 1]]
            if at + JOBS_A_ROW >= len(bounds):
                part.append(cut.last)
            rows.append({"task_id": task_id, "first_job": cut.first_job + at, "bounds": json.dumps(part)})
        await self._connection.execute(insert(job_bounds), rows)

    async def bounds(self, task_id: int, first: int, last: int) -> dict[int, tuple[int, int]]:
        """First position, and that behind the last, of those jobs from ``first`` to before ``last`` that are kept."""
        t = job_bounds.c
        query = select(t.first_job, t.bounds).where(
            t.task_id == task_id, t.first_job < last, t.first_job > first - JOBS_A_ROW
        )
        found: dict[int, tuple[int, int]] = {}
        for first_job, text in await self._connection.execute(query):
            try:
                bounds = _BOUNDS.validate_json(text)
            except ValueError as error:
                raise CorruptData(f"where jobs of task {task_id} begin is damaged: {error}") from error
            for job in range(max(first, first_job), min(last, first_job + len(bounds) - 1)):
                found[job] = (bounds[job - first_job], bounds[job - first_job + 1])
        return found


def dump_plan(plan: tuple[Cut, ...]) -> str:
    """Cuts as JSON."""
    return _dump(_PLAN, plan)


def _dump(adapter: TypeAdapter[_T], value: _T) -> str:
    return adapter.dump_json(value).decode()
