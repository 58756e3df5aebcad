"""Tasks of jobs that read a dataset which is still open: jobs are cut as its files come.

A job is cut when it is certain what it holds: when it has all that it may, or no more files come. So the jobs are those that
a closed dataset would be cut into, whenever the files have come, and no file is in two of them. What is left behind the last job
waits for more. Only where a dataset is opened again after its end, the last job of before stays as short as it was.
"""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.generation.cutting import Jobs, cut
from hpcpanda.dispatcher.generation.making import MOST_GROWN_JOBS, source_of, stated_caps
from hpcpanda.dispatcher.store.generation import Made
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.errors import TooLarge
from hpcpanda.domain.splitting import MAX_STORED_JOBS, Cut


async def cut_more(uow: UnitOfWork, account: Account, *, to_end: bool) -> int:
    """Cut what has come into jobs; gives how many there are more. Expects that the task is held.

    Args:
        uow: the transaction.
        account: of the task.
        to_end: no more files come.

    Raises:
        InvalidValue: a file is larger than a job may read.
        TooLarge: it makes more jobs than a task may have.
    """
    task_id = account.task_id
    spec = (await uow.accounts.specs([task_id]))[task_id]
    made = await uow.generation.get(task_id)
    source = await source_of(uow, spec, account.dataset_id)
    position = made.plan[-1].last if made.plan else 0
    jobs = await cut(source, stated_caps(spec), first_job=made.jobs, position=position, to_end=to_end)
    if not jobs.cut.jobs:
        return 0
    _require_room(jobs)
    if jobs.bounds:
        await uow.generation.put_bounds(task_id, jobs.cut, jobs.bounds)
    await uow.generation.change(task_id, with_cut(made, jobs.cut))
    if not made.jobs and spec.resources.event_seconds is not None:
        account.guess = spec.resources.event_seconds * source.events_in(jobs)
    return jobs.cut.jobs


def with_cut(made: Made, more: Cut) -> Made:
    """How a task's jobs are made when some are cut behind its last one: one cut with those before where one rule gives all."""
    if not made.plan or not made.plan[-1].goes_on_in(more):
        return replace(made, plan=(*made.plan, more))
    last = made.plan[-1]
    return replace(made, plan=(*made.plan[:-1], replace(last, jobs=last.jobs + more.jobs, last=more.last)))


def _require_room(jobs: Jobs) -> None:
    most = MAX_STORED_JOBS if jobs.bounds else MOST_GROWN_JOBS
    if jobs.cut.end_job > most:
        raise TooLarge(
            f"split: it makes more than {most:,} jobs; let each job hold more, or submit several tasks"
        )
