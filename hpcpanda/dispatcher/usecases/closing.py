"""How tasks come to an end."""

from __future__ import annotations

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.writing import end_writing
from hpcpanda.dispatcher.wording import counted
from hpcpanda.domain.states import TaskEvent, TaskState


async def close(uow: UnitOfWork, account: Account) -> None:
    """Nothing of a task that is final is ready or leased any more: late commits are refused."""
    await uow.leases.close_all_of(account.task_id)
    await uow.ready.clear(account.task_id)


async def judge(uow: UnitOfWork, account: Account, now: float) -> None:
    """Change the state of a task as its counts demand. Expects its failed events to be stored."""
    if account.state in (TaskState.SCOUTING, TaskState.RUNNING, TaskState.PAUSED):
        if account.failed > account.max_failed or (account.settled and not account.done):
            await _fail(uow, account, now)
        elif account.settled and not account.scouts:
            account.take(TaskEvent.ALL_SETTLED, now=now)
    if account.state is TaskState.MERGING and account.merged == account.done:
        if account.failed:
            message = f"{account.failed} of {account.total} {account.unit}s failed, as the task allows"
            account.take(TaskEvent.OUTPUT_COMPLETE_WITH_LOSSES, now=now, message=message)
        else:
            account.take(TaskEvent.OUTPUT_COMPLETE, now=now)
        await end_writing(uow, account, now=now)


async def _fail(uow: UnitOfWork, account: Account, now: float) -> None:
    (first,) = await uow.failures.page(account.task_id, after=None, limit=1)
    if account.failed > account.max_failed:
        why = f"{counted(account.failed, account.unit)} failed and the task may lose {account.max_failed or 'none'}"
    else:
        scouts = ", which ran before the others," if account.scouts else ""
        why = f"all of its {counted(account.failed, account.unit)}{scouts} failed"
    message = f"{why}; the first is {account.unit} {first.event}: {first.error}"
    account.take(TaskEvent.FAIL, now=now, message=message)
    await close(uow, account)
