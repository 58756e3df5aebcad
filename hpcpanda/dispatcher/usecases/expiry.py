"""Leases whose time is up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.leases import LeaseKey
from hpcpanda.dispatcher.store.pulse import AWAY_SECONDS
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLease

BATCH = 1000
"""Most leases ended in one transaction."""


async def sweep(uow: UnitOfWork, *, now: float) -> int:
    """End leases whose time is up, in a transaction of its own; gives how many (at most ``BATCH``)."""
    async with uow:
        return await end_overdue(uow, now)


async def beat(uow: UnitOfWork, *, lease_seconds: float, now: float, alone: bool = False) -> bool:
    """Note that a dispatcher is there. When none was for ``AWAY_SECONDS``, or the clock has jumped by as much, give
    every open lease a full life from now, since nobody could renew; gives whether that was so.

    Args:
        uow: the transaction.
        lease_seconds: a lease's life.
        now: the time on the clock that all dispatchers over the database share.
        alone: the caller has just started, and no other dispatcher uses this database.
    """
    async with uow:
        last = await uow.pulses.last()
        away = alone or last is None or abs(now - last) > AWAY_SECONDS
        if away:
            await uow.leases.restart_all(now + lease_seconds)
        await uow.pulses.put(now)
    return away


async def end_overdue(uow: UnitOfWork, now: float) -> int:
    """End leases whose time is up: what is outstanding becomes ready. Those of tasks that somebody else is changing
    are left to the next time."""
    task_ids = await uow.leases.tasks_overdue(now, BATCH)
    if not task_ids:
        return 0
    accounts = await uow.accounts.free_of(task_ids)
    late = await uow.leases.overdue(accounts.keys(), now, BATCH)
    await _end(uow, accounts, late, now)
    return len(late)


async def end_unknown(uow: UnitOfWork, *, edge: str, held: AbstractSet[LeaseKey], now: float) -> int:
    """End the open leases of an edge that it does not know of; gives how many."""
    unknown = [key for key in await uow.leases.open_held_by(edge) if key not in held]
    accounts = await uow.accounts.some(task_id for task_id, _ in unknown)
    leases = await uow.leases.held_by(edge, unknown)
    ended = {key: lease for key, lease in leases.items() if not lease.closed}
    await _end(uow, accounts, ended, now)
    return len(ended)


async def _end(
    uow: UnitOfWork, accounts: Mapping[int, Account], late: Mapping[LeaseKey, EventLease], now: float
) -> None:
    if not late:
        return
    freed: dict[int, IntervalSet] = defaultdict(lambda: EMPTY)
    ended = {}
    for key, lease in late.items():
        ended[key], returned = lease.give_back(lease.outstanding)
        freed[key[0]] |= returned
    uow.news.expired += len(ended)
    await uow.leases.save(ended)
    for task_id, events in freed.items():
        accounts[task_id].returned(len(events), now=now)
        await uow.ready.put(task_id, events)
    await uow.accounts.save([accounts[task_id] for task_id in freed])
