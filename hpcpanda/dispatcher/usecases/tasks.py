"""Submit, look at and cancel tasks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.chains.beginning import link_growing, may_grow
from hpcpanda.dispatcher.generation.making import keep, prepare
from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.store.codec import dump_spec
from hpcpanda.dispatcher.store.sites import Busy
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.closing import close
from hpcpanda.dispatcher.usecases.reading import dataset_read, place_data
from hpcpanda.dispatcher.usecases.writing import dataset_written, note_writer
from hpcpanda.domain.control import TaskChanges
from hpcpanda.domain.errors import Conflict, Forbidden, IllegalTransition
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskEvent, TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.task_views import FailedEventPage, Outputs, Progress, Task, TaskPage

PAGE_CHARACTERS = 8 * 2**20
"""Tasks of larger specifications make shorter pages: nobody fills the memory with one answer."""
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
    """Accept a task: all its events, or jobs, become ready, or its scouts first. The same key gives the same task again.
    The members of ``team`` see it, beside its owner.

    Raises:
        Conflict: the key was used before for another specification.
        TooLarge: the user's tasks have too many different groups and requirements, or it has too many jobs.
        InvalidValue: a dataset that it names cannot be read or written, or it cannot be cut into jobs.
        Forbidden: the dataset that it would write is somebody else's.
    """
    async with uow:
        if idempotency_key is not None:
            before = await uow.accounts.submitted_before(owner, idempotency_key)
            if before is not None:
                return await _repeated(uow, before, spec, now)
        reads = await dataset_read(uow, spec)
        writes = await dataset_written(uow, spec, owner=owner, now=now)
        growing = reads is not None and await may_grow(uow, spec, reads)
        account = _account_of(
            spec,
            owner=owner,
            total=spec.event_count if reads is None else reads.dataset.events,
            lane_id=await uow.lanes.of(owner=owner, group=spec.group, requirements=spec.requirements),
            now=now,
        )
        account.dataset_id = reads.dataset_id if reads is not None else None
        account.growing = growing
        account.writes_id = writes.dataset_id if writes is not None else None
        making = await prepare(uow, spec, account)
        account.task_id = await uow.accounts.add(account, spec, idempotency_key)
        if making is not None:
            await keep(uow, account.task_id, making)
        await uow.ready.put(account.task_id, IntervalSet.span(0, account.total))
        if reads is not None:
            await place_data(uow, account.task_id, reads)
            await link_growing(uow, spec, reads, task_id=account.task_id)
        if writes is not None:
            await note_writer(uow, writes, task_id=account.task_id, spec=spec)
        if team is not None:
            await uow.teams.add(account.task_id, team)
        uow.target = f"task {account.task_id}"
    return _task(account, spec, Busy(), now)


def _account_of(spec: TaskSpec, *, owner: str, total: int, lane_id: int, now: float) -> Account:
    """What is kept of a task of which nothing is done; its number comes with its row."""
    return Account(
        task_id=0,
        owner=owner,
        name=spec.name,
        state=TaskState.READY if total else TaskState.PENDING,
        priority=spec.priority,
        total=total,
        ready=total,
        max_failed=spec.loss.max_failed_events,
        guess=spec.resources.event_seconds,
        rate_at=now,
        created=now,
        updated=now,
        job=spec.job_request,
        in_container=spec.container is not None,
        lane_id=lane_id,
        served=now,
        deadline=spec.deadline.timestamp() if spec.deadline is not None else None,
    )


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
        shown = await _affordable(uow, found)
        if len(shown) < len(found):
            put_away = [task for task in put_away if task.task_id > shown[-1].task_id]
        both = sorted([*await _tasks(uow, shown, now), *put_away], key=lambda task: -task.task_id)
    page = tuple(both[:limit])
    more = len(both) > limit or len(shown) < len(found)
    return TaskPage(tasks=page, next_after=page[-1].task_id if more else None)


async def _affordable(uow: UnitOfWork, accounts: Sequence[Account]) -> Sequence[Account]:
    """The first of the accounts, as many as have specifications of ``PAGE_CHARACTERS`` together, one at least."""
    sizes = await uow.accounts.spec_sizes([account.task_id for account in accounts])
    total = accumulate(sizes[account.task_id] for account in accounts)
    return accounts[: max(1, sum(size <= PAGE_CHARACTERS for size in total))]


async def cancel_task(uow: UnitOfWork, *, task_id: int, caller: str, now: float) -> Task:
    """Abort a task; a task that is aborted already is left as it is.

    Raises:
        NotFound: there is no such task.
        Forbidden: it is somebody else's.
        IllegalTransition: it has come to another end.
    """
    async with uow:
        account = await held_task(uow, task_id)
        if account.owner != caller:
            raise Forbidden(f"task {task_id} belongs to {account.owner}; only its owner may cancel it")
        if account.state is not TaskState.ABORTED:
            account.take(TaskEvent.CANCEL, now=now, message=f"cancelled by {caller}")
            await close(uow, account)
            await uow.accounts.save([account])
        return (await _tasks(uow, [account], now))[0]


async def held_task(uow: UnitOfWork, task_id: int) -> Account:
    """A task that is to be changed, held until the transaction ends.

    Raises:
        NotFound: there is no such task.
        IllegalTransition: it was put away.
    """
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
            ready=account.ready + account.held,
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
        changes=_changes(account, spec),
    )


def _changes(account: Account, spec: TaskSpec) -> TaskChanges | None:
    deadline = spec.deadline
    if account.deadline != (deadline.timestamp() if deadline is not None else None):
        deadline = datetime.fromtimestamp(account.deadline, UTC) if account.deadline is not None else None
    now = TaskChanges(
        priority=account.priority,
        deadline=deadline,
        tries=account.tries,
        more_memory=account.more_memory,
        more_time=account.more_time,
    )
    return now if now != TaskChanges(priority=spec.priority, deadline=spec.deadline) else None
