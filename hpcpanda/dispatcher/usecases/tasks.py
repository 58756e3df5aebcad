"""Submit, look at and cancel tasks."""

from __future__ import annotations

from collections.abc import Sequence

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.store.codec import dump_spec
from hpcpanda.dispatcher.store.sites import Busy
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.closing import close
from hpcpanda.domain.errors import Conflict, Forbidden, IllegalTransition
from hpcpanda.domain.exchange import FailedEventPage, Outputs, Progress, Task, TaskPage
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskEvent, TaskState
from hpcpanda.domain.task import TaskSpec

ACTIVITY_SECONDS = 30.0
"""Older reports of what an edge is doing do not count."""


async def submit_task(
    uow: UnitOfWork,
    *,
    spec: TaskSpec,
    owner: str,
    idempotency_key: str | None,
    now: float,
    team: str | None = None,
) -> Task:
    """Accept a task: all its events, or jobs, become ready. The same key gives the same task again.
    The members of ``team`` see it, beside its owner.

    Raises:
        Conflict: the key was used before for another specification.
        TooLarge: the user's tasks have too many different groups and requirements.
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
            lane_id=await uow.lanes.of(owner=owner, group=spec.group, requirements=spec.requirements),
            served=now,
            deadline=spec.deadline.timestamp() if spec.deadline is not None else None,
        )
        account.task_id = await uow.accounts.add(account, spec, idempotency_key)
        await uow.ready.put(account.task_id, IntervalSet.span(0, account.total))
        if team is not None:
            await uow.teams.add(account.task_id, team)
        uow.target = f"task {account.task_id}"
    return _task(account, spec, Busy(), now)


async def _repeated(uow: UnitOfWork, task_id: int, spec: TaskSpec, now: float) -> Task:
    # What is stored is read before it is compared: fields that a later version has added are then equal.
    before = await task_of(uow, task_id, now=now)
    if dump_spec(before.spec) != dump_spec(spec):
        raise Conflict(
            f"this Idempotency-Key was used for task {task_id}, which is specified differently; use a new key"
        )
    return before


async def get_task(uow: UnitOfWork, *, task_id: int, now: float) -> Task:
    """One task.

    Raises:
        NotFound: there is no such task.
    """
    async with uow:
        return await task_of(uow, task_id, now=now)


async def task_of(uow: UnitOfWork, task_id: int, *, now: float) -> Task:
    """One task, also if it was put away, within a transaction.

    Raises:
        NotFound: there is no such task.
    """
    found = await uow.accounts.some((task_id,))
    if task_id not in found:
        return await uow.archive.get(task_id)
    return (await _tasks(uow, [found[task_id]], now))[0]


async def list_tasks(
    uow: UnitOfWork,
    *,
    state: TaskState | None,
    name: str | None,
    owner: str | None,
    sight: Sight | None,
    limit: int,
    after: int | None,
    now: float,
) -> TaskPage:
    """Tasks that the caller sees, newest first."""
    async with uow:
        found = await uow.accounts.page(
            state=state, name=name, owner=owner, sight=sight, limit=limit + 1, after=after
        )
        put_away = await uow.archive.page(
            state=state, name=name, owner=owner, sight=sight, limit=limit + 1, after=after
        )
        both = sorted([*await _tasks(uow, found, now), *put_away], key=lambda task: -task.task_id)
    page = tuple(both[:limit])
    return TaskPage(tasks=page, next_after=page[-1].task_id if len(both) > limit else None)


async def cancel_task(uow: UnitOfWork, *, task_id: int, caller: str, now: float) -> Task:
    """Abort a task; a task that is aborted already is left as it is.

    Raises:
        NotFound: there is no such task.
        Forbidden: it is somebody else's.
        IllegalTransition: it has come to another end.
    """
    async with uow:
        account = await _held(uow, task_id)
        if account.owner != caller:
            raise Forbidden(f"task {task_id} belongs to {account.owner}; only its owner may cancel it")
        if account.state is not TaskState.ABORTED:
            account.take(TaskEvent.CANCEL, now=now, message=f"cancelled by {caller}")
            await close(uow, account)
            await uow.accounts.save([account])
        return (await _tasks(uow, [account], now))[0]


async def _held(uow: UnitOfWork, task_id: int) -> Account:
    """A task that is to be changed."""
    found = await uow.accounts.some((task_id,))
    if task_id not in found:
        state = (await uow.archive.get(task_id)).state
        raise IllegalTransition(f"task {task_id} is {state} and was put away; nothing of it changes any more")
    return found[task_id]


async def list_outputs(uow: UnitOfWork, *, task_id: int) -> Outputs:
    """All merged files of a task.

    Raises:
        NotFound: there is no such task.
    """
    async with uow:
        if not await uow.accounts.some((task_id,)):
            return Outputs(files=(await uow.archive.details(task_id)).outputs)
        return Outputs(files=tuple(output for _, output in await uow.outputs.of_task(task_id)))


async def list_failures(uow: UnitOfWork, *, task_id: int, after: int | None, limit: int) -> FailedEventPage:
    """Failed events of a task, by event number.

    Raises:
        NotFound: there is no such task.
    """
    async with uow:
        if await uow.accounts.some((task_id,)):
            found = await uow.failures.page(task_id, after=after, limit=limit + 1)
        else:
            put_away = (await uow.archive.details(task_id)).failures
            found = [f for f in put_away if after is None or f.event > after][: limit + 1]
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
