"""Submit, look at and cancel tasks."""

from __future__ import annotations

from collections.abc import Sequence

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.codec import dump_spec
from hpcpanda.dispatcher.store.sites import Busy
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.closing import close
from hpcpanda.domain.errors import Conflict, Forbidden
from hpcpanda.domain.exchange import FailedEventPage, Outputs, Progress, Task, TaskPage
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskEvent, TaskState
from hpcpanda.domain.task import TaskSpec

ACTIVITY_SECONDS = 30.0
"""Older reports of what an edge is doing do not count."""


async def submit_task(
    uow: UnitOfWork, *, spec: TaskSpec, owner: str, idempotency_key: str | None, now: float
) -> Task:
    """Accept a task: all its events, or jobs, become ready. The same key gives the same task again.

    Raises:
        Conflict: the key was used before for another specification.
    """
    async with uow:
        if idempotency_key is not None:
            before = await uow.accounts.submitted_before(owner, idempotency_key)
            if before is not None:
                return await _repeated(uow, before, spec, now)
        account = Account(
            task_id=0,
            owner=owner,
            name=spec.name,
            state=TaskState.READY,
            priority=spec.priority,
            total=spec.event_count,
            ready=spec.event_count,
            max_failed=spec.loss.max_failed_events,
            guess=spec.resources.event_seconds,
            rate_at=now,
            created=now,
            updated=now,
            job=spec.job_request,
            in_container=spec.container is not None,
        )
        account.task_id = await uow.accounts.add(account, spec, idempotency_key)
        await uow.ready.put(account.task_id, IntervalSet.span(0, account.total))
    return _task(account, spec, Busy(), now)


async def _repeated(uow: UnitOfWork, task_id: int, spec: TaskSpec, now: float) -> Task:
    # What is stored is read before it is compared: fields that a later version has added are then equal.
    if dump_spec((await uow.accounts.specs([task_id]))[task_id]) != dump_spec(spec):
        raise Conflict(
            f"this Idempotency-Key was used for task {task_id}, which is specified differently; use a new key"
        )
    return (await _tasks(uow, [await uow.accounts.get(task_id)], now))[0]


async def get_task(uow: UnitOfWork, *, task_id: int, now: float) -> Task:
    """One task.

    Raises:
        NotFound: there is no such task.
    """
    async with uow:
        return (await _tasks(uow, [await uow.accounts.get(task_id)], now))[0]


async def list_tasks(
    uow: UnitOfWork,
    *,
    state: TaskState | None,
    name: str | None,
    owner: str | None,
    limit: int,
    after: int | None,
    now: float,
) -> TaskPage:
    """Tasks, newest first."""
    async with uow:
        found = await uow.accounts.page(state=state, name=name, owner=owner, limit=limit + 1, after=after)
        page = found[:limit]
        tasks = await _tasks(uow, page, now)
    return TaskPage(tasks=tuple(tasks), next_after=page[-1].task_id if len(found) > limit else None)


async def cancel_task(uow: UnitOfWork, *, task_id: int, caller: str, now: float) -> Task:
    """Abort a task; a task that is aborted already is left as it is.

    Raises:
        NotFound: there is no such task.
        Forbidden: it is somebody else's.
        IllegalTransition: it has come to another end.
    """
    async with uow:
        account = await uow.accounts.get(task_id)
        if account.owner != caller:
            raise Forbidden(f"task {task_id} belongs to {account.owner}; only its owner may cancel it")
        if account.state is not TaskState.ABORTED:
            account.take(TaskEvent.CANCEL, now=now, message=f"cancelled by {caller}")
            await close(uow, account)
            await uow.accounts.save([account])
        return (await _tasks(uow, [account], now))[0]


async def list_outputs(uow: UnitOfWork, *, task_id: int) -> Outputs:
    """All merged files of a task.

    Raises:
        NotFound: there is no such task.
    """
    async with uow:
        await uow.accounts.get(task_id)
        return Outputs(files=tuple(output for _, output in await uow.outputs.of_task(task_id)))


async def list_failures(uow: UnitOfWork, *, task_id: int, after: int | None, limit: int) -> FailedEventPage:
    """Failed events of a task, by event number.

    Raises:
        NotFound: there is no such task.
    """
    async with uow:
        await uow.accounts.get(task_id)
        found = await uow.failures.page(task_id, after=after, limit=limit + 1)
    page = tuple(found[:limit])
    return FailedEventPage(events=page, next_after=page[-1].event if len(found) > limit else None)


async def _tasks(uow: UnitOfWork, accounts: Sequence[Account], now: float) -> list[Task]:
    ids = [account.task_id for account in accounts]
    specs = await uow.accounts.specs(ids)
    busy = await uow.activity.of_tasks(ids, since=now - ACTIVITY_SECONDS)
    return [_task(a, specs[a.task_id], busy.get(a.task_id, Busy()), now) for a in accounts]


def _task(account: Account, spec: TaskSpec, busy: Busy, now: float) -> Task:
    return Task(
        task_id=account.task_id,
        owner=account.owner,
        state=account.state,
        spec=spec,
        progress=Progress(
            total=account.total,
            ready=account.ready,
            leased=account.leased,
            done=account.done,
            failed=account.failed,
            event_seconds=account.event_seconds,
            events_per_second=account.rate_now(now),
            cores_busy=busy.cores_busy,
            cores=busy.cores,
        ),
        created=account.created,
        updated=account.updated,
        message=account.message,
    )
