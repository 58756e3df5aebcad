"""What people are told of scouts."""

from __future__ import annotations

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.wording import counted
from hpcpanda.domain.scouting import ENOUGH


async def scouting(uow: UnitOfWork, account: Account) -> list[str]:
    """How far the scouts of a task are, as long as others wait for them."""
    if not account.scouts:
        return []
    made = await uow.generation.get(account.task_id)
    others = made.most_jobs - account.scouts
    is_cut = not made.plan or made.jobs == made.most_jobs
    wait = (
        f"{counted(others, 'other job')} {'waits' if others == 1 else 'wait'}" if is_cut else "The rest waits"
    )
    back = f"{account.done + account.failed} of {account.scouts} back"
    return [f"It is scouting: {back}. {wait} until {float(ENOUGH):.0%} of them have shown what a job needs."]
