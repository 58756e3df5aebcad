"""Tasks that read a dataset which is still open: they grow as its files come, and are complete when it is closed.

A task's events are the entries of the dataset, in its order, and its ``total`` says how many of them it has taken in. To
grow is to bring that up to what the dataset has, in a transaction that holds the task's row. So nothing has to be remembered
between the recording of a file and the growth: a dispatcher that dies in between, or two that do it at once, or a report
that comes twice, change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.closing import close, judge
from hpcpanda.dispatcher.usecases.reading import place_data
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskEvent

BATCH = 50
"""Most tasks that grow in one transaction."""


async def tasks_to_grow(uow: UnitOfWork) -> list[int]:
    """Tasks with something to take in, at most ``BATCH``."""
    async with uow:
        return await uow.chains.due(BATCH)


async def grow_tasks(uow: UnitOfWork, *, task_ids: Sequence[int], now: float) -> int:
    """Take in what has come for these tasks; gives how many events became ready."""
    async with uow:
        accounts = await uow.accounts.some(task_ids)
        grown = 0
        for account in accounts.values():
            if account.growing and not account.state.final:
                grown += await _grow(uow, account, now)
    return grown


async def _grow(uow: UnitOfWork, account: Account, now: float) -> int:
    assert account.dataset_id is not None, "it reads a dataset"
    entry = await uow.datasets.get(account.dataset_id)
    before, total = account.total, entry.dataset.events
    if total > before:
        await uow.ready.put(account.task_id, IntervalSet.span(before, total))
        account.grew(total - before, now=now)
        await place_data(uow, account.task_id, entry)
    reason = f"dataset {entry.dataset.did} was closed without a file"
    ends = not entry.dataset.open
    if not ends and (policy := await uow.chains.policy(account.task_id)) != "wait":
        ends = await uow.chains.is_abandoned(entry.dataset_id)
        if ends:
            (last,) = await uow.chains.writers(entry.dataset_id, limit=1)
            reason = f"task {last.task_id}, which wrote dataset {entry.dataset.did}, is {last.state}, and the dataset is open"
            if policy == "fail":
                await _fail(uow, account, reason, now)
                return 0
    if ends:
        account.growing = False
        await uow.chains.drop(account.task_id)
        if not account.total:
            await _fail(uow, account, reason, now)
            return 0
        await judge(uow, account, now)
    await uow.accounts.rewrite(account)
    return total - before


async def _fail(uow: UnitOfWork, account: Account, message: str, now: float) -> None:
    account.take(TaskEvent.FAIL, now=now, message=message)
    await close(uow, account)
    await uow.accounts.rewrite(account)
