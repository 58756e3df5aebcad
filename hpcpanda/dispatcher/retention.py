"""Keep the tables small: forget what nobody can ask for any more, and put finished tasks away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.archive import MAX_FAILURES, EndedTask, TaskDetails
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.explain import explain_account
from hpcpanda.dispatcher.usecases.tasks import task_of
from hpcpanda.domain.errors import InvalidValue

BATCH = 20
"""Tasks in one transaction: edges wait for no more than that."""
DAY = 86_400.0


@dataclass(slots=True, kw_only=True)
class Retention:
    """How long what is kept of tasks that have ended, and how far one dispatcher has come with it."""

    prune_days: float
    archive_days: float
    pruned_until: float = 0.0
    """Of all tasks that ended up to then, nothing is left that only edges need."""

    def __post_init__(self) -> None:
        if self.archive_days < self.prune_days:
            raise InvalidValue(
                "HPCPANDA_DISPATCHER_ARCHIVE_DAYS",
                f"{self.archive_days:g} is less than HPCPANDA_DISPATCHER_PRUNE_DAYS, {self.prune_days:g}",
            )


async def retain(writing: Callable[[], UnitOfWork], *, retention: Retention, now: float) -> int:
    """Do a portion of what is due, in one or two transactions; gives how many tasks it was done to."""
    return await prune(writing(), retention=retention, now=now) + await archive(
        writing(), retention=retention, now=now
    )


async def prune(uow: UnitOfWork, *, retention: Retention, now: float) -> int:
    """Of tasks that ended ``prune_days`` ago, forget leases, ready events and what edges said of them."""
    due = now - retention.prune_days * DAY
    async with uow:
        ended = await uow.archive.ended(after=retention.pruned_until, before=due, limit=BATCH)
        held = await _held(uow, ended, due)
        if held:
            await uow.archive.prune(held.keys())
    if ended:
        retention.pruned_until = ended[-1].ended
    return len(held)


async def archive(uow: UnitOfWork, *, retention: Retention, now: float) -> int:
    """Put away tasks that ended ``archive_days`` ago."""
    due = now - retention.archive_days * DAY
    async with uow:
        ended = await uow.archive.ended(after=0.0, before=due, limit=BATCH)
        held = await _held(uow, ended, due)
        for task_id, account in held.items():
            task = await task_of(uow, task_id, now=now)
            details = TaskDetails(
                outputs=tuple(output for _, output in await uow.outputs.of_task(task_id)),
                failures=tuple(await uow.failures.page(task_id, after=None, limit=MAX_FAILURES)),
                explanation=await explain_account(uow, account, terms=Terms(), now=now),
            )
            await uow.archive.put(task, details, now=now)
    return len(held)


async def _held(uow: UnitOfWork, ended: list[EndedTask], due: float) -> dict[int, Account]:
    """Those tasks that nobody else is changing, held, and still at their end."""
    accounts = await uow.accounts.free_of([task.task_id for task in ended])
    return {t: a for t, a in accounts.items() if a.state.final and a.updated < due}
