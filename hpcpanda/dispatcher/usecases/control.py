"""What users do to tasks that run, or have run: pause, resume, retry, another priority or deadline."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.chains.reading_on import read_on
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.closing import judge
from hpcpanda.dispatcher.usecases.tasks import held_task, task_of
from hpcpanda.dispatcher.usecases.writing import write_again
from hpcpanda.domain.errors import Forbidden, IllegalTransition
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLease
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task_views import Task


async def pause_task(uow: UnitOfWork, *, task_id: int, caller: str, anyone: bool = False, now: float) -> Task:
    """Lease nothing more of a task; what is leased is finished and counts. A paused task is left as it is.

    Raises:
        NotFound: there is no such task.
        Forbidden: it is somebody else's, and the caller is not allowed ``anyone``'s.
        IllegalTransition: it has ended, or nothing of it is left to be leased.
    """
    async with uow:
        account = await _owned(uow, task_id, caller, anyone=anyone)
        if account.state is not TaskState.PAUSED:
            account.pause(now=now, message=f"paused by {caller}")
            await uow.accounts.save([account])
        return await task_of(uow, task_id, now=now)


async def resume_task(
    uow: UnitOfWork, *, task_id: int, caller: str, anyone: bool = False, now: float
) -> Task:
    """Go on with a paused task. One that is not paused and has not ended is left as it is.

    Raises:
        NotFound: there is no such task.
        Forbidden: it is somebody else's, and the caller is not allowed ``anyone``'s.
        IllegalTransition: it has ended.
    """
    async with uow:
        account = await _owned(uow, task_id, caller, anyone=anyone)
        if account.state.final:
            raise IllegalTransition(f"task {task_id} is {account.state}; there is nothing to go on with")
        if account.state is TaskState.PAUSED:
            account.resume(now=now)
            await judge(uow, account, now)
            await uow.accounts.save([account])
        return await task_of(uow, task_id, now=now)


async def set_priority(
    uow: UnitOfWork, *, task_id: int, priority: int, caller: str, anyone: bool = False, now: float
) -> Task:
    """Give a task another place in the order, from its next lease on.

    Raises:
        NotFound: there is no such task.
        Forbidden: it is somebody else's, and the caller is not allowed ``anyone``'s.
        IllegalTransition: it has ended.
    """
    async with uow:
        account = await _owned(uow, task_id, caller, anyone=anyone)
        _require_open(account, "priority")
        account.priority = priority
        await uow.accounts.rewrite(account)
        return await task_of(uow, task_id, now=now)


async def set_deadline(
    uow: UnitOfWork, *, task_id: int, deadline: datetime | None, caller: str, anyone: bool = False, now: float
) -> Task:
    """Give a task another deadline, or none.

    Raises:
        NotFound: there is no such task.
        Forbidden: it is somebody else's, and the caller is not allowed ``anyone``'s.
        IllegalTransition: it has ended.
    """
    async with uow:
        account = await _owned(uow, task_id, caller, anyone=anyone)
        _require_open(account, "deadline")
        account.deadline = deadline.timestamp() if deadline is not None else None
        await uow.accounts.rewrite(account)
        return await task_of(uow, task_id, now=now)


async def retry_task(uow: UnitOfWork, *, task_id: int, caller: str, anyone: bool = False, now: float) -> Task:
    """Do again what is in no output of a task that is finished or has failed. A task that has not ended is left as it is.

    What is in outputs stays. Everything else becomes ready under new epochs: of a finished task its failed events, of
    one that has failed also what was done and not merged, since edges may have cleaned that up. Leases of earlier tries
    are void, and what they had recorded beyond the outputs is struck out, so nothing can be merged twice. Sites that
    were taken off the task may have it again. The dataset that it writes is open again, if the end of tasks had closed
    it. A task that reads a dataset as it grows goes on to read it, also if it is done and files have come since.

    Raises:
        NotFound: there is no such task.
        Forbidden: it is somebody else's, and the caller is not allowed ``anyone``'s.
        IllegalTransition: it is done or was aborted, or was put away; or what it reads would wait for what it writes.
    """
    async with uow:
        account = await _owned(uow, task_id, caller, anyone=anyone)
        if account.state.final:
            account.growing |= (reads_on := await read_on(uow, account))
            _require_something(account, reads_on=reads_on)
            await write_again(uow, account, now=now)
            again = IntervalSet.span(0, account.total) - await _keep_outputs(uow, account)
            await uow.failures.clear(task_id)
            await uow.tried_again.clear(task_id)
            await uow.fences.clear(task_id)
            await uow.ready.clear(task_id)
            await uow.ready.put(task_id, again)
            account.retry(len(again), now=now)
            await judge(uow, account, now)
            await uow.accounts.rewrite(account)
        return await task_of(uow, task_id, now=now)


async def _owned(uow: UnitOfWork, task_id: int, caller: str, *, anyone: bool) -> Account:
    account = await held_task(uow, task_id)
    if account.owner != caller and not anyone:
        raise Forbidden(f"task {task_id} belongs to {account.owner}; only its owner may change it")
    return account


def _require_something(account: Account, *, reads_on: bool) -> None:
    """There is something of a task that has ended which could be done."""
    if reads_on:
        return
    if not account.total:
        article = "an" if account.unit == "event" else "a"
        raise IllegalTransition(f"task {account.task_id} never had {article} {account.unit}; submit another")
    if account.state is TaskState.DONE:
        raise IllegalTransition(
            f"a task that is {account.state} cannot take 'retry': all of it is in its outputs"
        )


def _require_open(account: Account, what: str) -> None:
    if account.state.final:
        raise IllegalTransition(
            f"task {account.task_id} is {account.state}; its {what} changes nothing any more"
        )


async def _keep_outputs(uow: UnitOfWork, account: Account) -> IntervalSet:
    """Strike out of a task's leases what is in no output; gives what is in outputs."""
    task_id, merged = account.task_id, EMPTY
    by_edge: dict[str, IntervalSet] = {}
    for edge, output in await uow.outputs.of_task(task_id):
        by_edge[edge] = by_edge.get(edge, EMPTY) | output.events
        merged |= output.events
    known: dict[str, IntervalSet] = {}
    struck: dict[tuple[int, int], EventLease] = {}
    for lease in await uow.leases.all_of(task_id):
        kept = lease.committed & by_edge.get(lease.holder, EMPTY)
        known[lease.holder] = known.get(lease.holder, EMPTY) | kept
        if kept != lease.committed or lease.outstanding:
            struck[task_id, lease.epoch] = replace(lease, outstanding=EMPTY, committed=kept)
    await uow.leases.save(struck)
    for edge, events in by_edge.items():
        if forgotten := events - known.get(edge, EMPTY):
            await uow.leases.add([(task_id, account.remembered(edge, forgotten, now=account.updated))])
    return merged
