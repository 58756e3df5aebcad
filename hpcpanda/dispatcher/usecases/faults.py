"""Tasks that cannot be run where they were given to: they are taken from there, or fail when there is nowhere else."""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.brokerage.failures import OF_THE_SITE
from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.control import Fence
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.closing import close
from hpcpanda.dispatcher.usecases.failing import note_faults, other_sites
from hpcpanda.domain.exchange import TaskFault
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import ERROR_TEXT_LIMIT, EventLease
from hpcpanda.domain.states import TaskEvent, TaskState
from hpcpanda.domain.why import Why

OFF_S = 21_600.0
"""So long a site is given nothing of a task that it could not run."""
MAX_SITES_TRIED = 3
"""When so many sites could not run a task, it fails."""


async def take_fault(
    uow: UnitOfWork, account: Account | None, fault: TaskFault, *, edge: str, terms: Terms, now: float
) -> bool:
    """Take in that a site cannot run a task, on the word of an edge that was given some of it; gives whether something
    became ready.

    The site is taken off the task and what it has of it that is in no output is done again elsewhere. When no other
    site that is there may have it, or several could not run it, it fails. What is said again changes nothing.
    """
    if account is None or account.state.final:
        return False
    fences = {fence.edge: fence for fence in await uow.fences.of_task(account.task_id)}
    since = max(account.first_epoch, fences[edge].first_epoch if edge in fences else 1)
    leases = [lease for lease in await uow.leases.all_of(account.task_id) if lease.holder == edge]
    if not any(lease.epoch >= since for lease in leases):
        return False
    rule = terms.rules.of(fault.error)
    if rule.kind in OF_THE_SITE:
        await note_faults(
            uow, edge, {account.task_id: rule.kind}, accounts={account.task_id: account}, now=now
        )
    text = fault.error[:ERROR_TEXT_LIMIT]
    tried = {name for name, fence in fences.items() if fence.first_epoch > account.first_epoch} | {edge}
    others = await other_sites(uow, account, but=edge, terms=terms, now=now)
    if not others or len(tried) >= MAX_SITES_TRIED:
        more = f"; nor could {', '.join(sorted(tried - {edge}))}" if len(tried) > 1 else ""
        account.take(TaskEvent.FAIL, now=now, message=f"edge {edge} cannot run it: {text}{more}")
        await close(uow, account)
        return False
    why = Why(code="cannot-run", sentence=f"It could not be run here ({rule.kind}, {rule.name}): {text}")
    await _take_off(uow, account, leases, edge=edge, why=why, now=now)
    return True


async def _take_off(
    uow: UnitOfWork, account: Account, leases: list[EventLease], *, edge: str, why: Why, now: float
) -> None:
    """Void what a site has of a task and no output holds: it is ready again, and nothing of it is merged there."""
    recorded = await uow.outputs.of_task(account.task_id)
    settled = IntervalSet.of(r for where, file in recorded if where == edge for r in file.events.ranges())
    settled |= await uow.failures.numbers(account.task_id)
    freed, undone = EMPTY, EMPTY
    changed = {}
    for lease in leases:
        lost = lease.committed - settled
        if lost or lease.outstanding:
            freed |= lease.outstanding
            undone |= lost
            struck = replace(lease, outstanding=EMPTY, committed=lease.committed - lost)
            changed[account.task_id, lease.epoch] = struck
    await uow.leases.save(changed)
    await uow.ready.put(account.task_id, freed | undone)
    account.returned(len(freed), now=now)
    account.undone(len(undone), now=now)
    if account.state is TaskState.MERGING and undone:
        account.take(TaskEvent.REOPEN, now=now)
    if undone:
        account.tries += 1
    account.fenced = True
    await uow.fences.put(
        Fence(
            task_id=account.task_id,
            edge=edge,
            first_epoch=account.next_epoch,
            until=now + OFF_S,
            why=why,
        )
    )
    await uow.accounts.rewrite(account)
