"""What sites are told of their leases of earlier tries."""

from __future__ import annotations

from collections.abc import Mapping

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork


async def first_epochs(uow: UnitOfWork, edge: str, accounts: Mapping[int, Account]) -> dict[int, int]:
    """By task: what a site has under lower epochs is void."""
    found = {task_id: account.first_epoch for task_id, account in accounts.items()}
    fenced = [task_id for task_id, account in accounts.items() if account.fenced]
    for task_id, fence in (await uow.fences.of_edge(edge, fenced)).items():
        found[task_id] = max(found[task_id], fence.first_epoch)
    return found
