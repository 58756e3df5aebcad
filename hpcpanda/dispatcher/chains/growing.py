"""Tasks that read a dataset which is still open: they grow as its files come, and are complete when it is closed.

A task's events are the entries of the dataset, in its order, and its ``total`` says how many of them it has taken in; of a
task that is cut into jobs its cuts say it. To grow is to bring that up to what the dataset has, in a transaction that holds
the task's row. So nothing has to be remembered between the recording of a file and the growth: a dispatcher that dies in
between, or two that do it at once, or a report that comes twice, change nothing.

A dataset that was closed is open again when a task that has written it is tried again. Tasks that have not ended meanwhile
grow again; one that has reads the rest when it is tried again itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.catalogue.port import Entry
from hpcpanda.dispatcher.generation.growing import cut_more
from hpcpanda.dispatcher.store.chains import CAN_GROW, Link
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.closing import close, judge
from hpcpanda.dispatcher.usecases.reading import place_data
from hpcpanda.domain.errors import InvalidValue, TooLarge
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskEvent

BATCH = 50
"""Most tasks that grow in one transaction."""


async def tasks_to_grow(uow: UnitOfWork) -> list[int]:
    """Tasks with something to take in, at most ``BATCH``."""
    async with uow:
        return await uow.chains.due(BATCH)


async def grow_tasks(uow: UnitOfWork, *, task_ids: Sequence[int], now: float) -> int:
    """Take in what has come for these tasks; gives how many events, or jobs, became ready."""
    async with uow:
        accounts = await uow.accounts.some(task_ids)
        grown = 0
        for account in accounts.values():
            link = await uow.chains.link(account.task_id)
            if account.state in CAN_GROW and link is not None:
                grown += await _grow(uow, account, link, now)
    return grown


async def _grow(uow: UnitOfWork, account: Account, link: Link, now: float) -> int:
    assert account.dataset_id is not None, "it reads a dataset"
    entry = await uow.datasets.get(account.dataset_id)
    abandoned = await _abandoned(uow, entry, link)
    if abandoned is not None and link.if_abandoned == "fail":
        await _fail(uow, account, abandoned, now)
        return 0
    ends = not entry.dataset.open or abandoned is not None
    before = account.total
    try:
        await _take_in(uow, account, entry, link, ends=ends, now=now)
    except (InvalidValue, TooLarge) as problem:
        await _fail(uow, account, f"what has come cannot be cut into jobs: {problem}", now)
        return 0
    account.growing = not ends
    if ends and not account.total:
        reason = abandoned or f"dataset {entry.dataset.did} was closed without a file"
        await _fail(uow, account, reason, now)
        return 0
    if ends:
        await judge(uow, account, now)
    await uow.accounts.rewrite(account)
    return account.total - before


async def _abandoned(uow: UnitOfWork, entry: Entry, link: Link) -> str | None:
    """Why a task that does not wait for ever waits no longer; None when files may come."""
    if not entry.dataset.open or link.if_abandoned == "wait":
        return None
    if not await uow.chains.is_abandoned(entry.dataset_id):
        return None
    (last,) = await uow.chains.writers(entry.dataset_id, limit=1)
    return f"task {last.task_id}, which wrote dataset {entry.dataset.did}, is {last.state}, and the dataset is open"


async def _take_in(
    uow: UnitOfWork, account: Account, entry: Entry, link: Link, *, ends: bool, now: float
) -> None:
    """Make ready what has come.

    Raises:
        InvalidValue: it cannot be cut into jobs as the task says.
        TooLarge: it makes more jobs than a task may have.
    """
    before, events = account.total, entry.dataset.events
    if account.is_split:
        more = await cut_more(uow, account, to_end=ends)
    else:
        more = events - before
    if more > 0:
        await uow.ready.put(account.task_id, IntervalSet.span(before, before + more))
        account.grew(more, now=now)
    if events > link.seen:
        await uow.chains.saw(account.task_id, events)
        await place_data(uow, account.task_id, entry)


async def _fail(uow: UnitOfWork, account: Account, message: str, now: float) -> None:
    account.take(TaskEvent.FAIL, now=now, message=message)
    await close(uow, account)
    await uow.accounts.rewrite(account)
