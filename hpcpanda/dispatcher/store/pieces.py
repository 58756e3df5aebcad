"""Jobs that were split since they were too large, in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.generation import Made, dump_plan
from hpcpanda.dispatcher.store.generation_tables import generation, job_pieces
from hpcpanda.dispatcher.store.upsert import upsert
from hpcpanda.domain.halving import Halves
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.splitting import Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitJobs:
    """How jobs of a task were split."""

    count: int = 0
    """Jobs that came of it."""
    last: str | None = None
    """What was told of the last of them."""


def pieces_in(made: Made) -> int:
    """How many jobs of a task came of others."""
    return sum(cut.jobs for cut in made.plan if cut.of_pieces)


class JobPieces:
    """Pieces of jobs of all tasks. A task has some when one of its cuts is of pieces."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, task_id: int, jobs: IntervalSet) -> dict[int, tuple[int, int]]:
        """First position, and that behind the last, of those of the jobs that were split or came of that."""
        t = job_pieces.c
        query = select(t.job, t.first, t.last).where(
            t.task_id == task_id, t.job >= jobs.bounds[0], t.job < jobs.bounds[-1]
        )
        return {
            job: (first, last) for job, first, last in await self._connection.execute(query) if job in jobs
        }

    async def add(
        self, task_id: int, made: Made, halves: Mapping[int, Halves], whys: Mapping[int, str]
    ) -> None:
        """Write down how jobs were split.

        Args:
            task_id: whose jobs they are.
            made: how its jobs were made before.
            halves: by the number of the job that came of it, behind all others.
            whys: what is told of it, by the same number.
        """
        rows = []
        for other, half in halves.items():
            for job, (first, last), why in ((half.job, half.kept, None), (other, half.given, whys[other])):
                rows.append({"task_id": task_id, "job": job, "first": first, "last": last, "why": why})
        await upsert(self._connection, job_pieces, rows, changes=("first", "last"))
        plan = _longer(made.plan, len(halves))
        statement = update(generation).where(generation.c.task_id == task_id)
        values = {"plan": dump_plan(plan), "most_jobs": max(made.most_jobs, plan[-1].end_job)}
        await self._connection.execute(statement.values(values))

    async def told(self, task_id: int) -> SplitJobs:
        """How jobs of a task were split."""
        t = job_pieces.c
        of_task = (t.task_id == task_id, t.why.is_not(None))
        last = select(t.why).where(*of_task).order_by(t.job.desc()).limit(1).scalar_subquery()
        row = (await self._connection.execute(select(func.count(), last).where(*of_task))).one()
        return SplitJobs(count=row[0], last=row[1])


def _longer(plan: tuple[Cut, ...], jobs: int) -> tuple[Cut, ...]:
    """The cuts of a task with so many more jobs of pieces."""
    last = plan[-1]
    if last.of_pieces:
        return (*plan[:-1], replace(last, jobs=last.jobs + jobs))
    more = Cut(unit=last.unit, first_job=last.end_job, jobs=jobs, first=last.last, last=last.last)
    return (*plan, more)
