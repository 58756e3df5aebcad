"""Leases whose time is up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from hpcpanda.dispatcher.store.leases import LeaseKey
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLease

BATCH = 1000
"""Most leases ended in one transaction."""


async def sweep(uow: UnitOfWork, *, now: float) -> int:
    """End leases whose time is up, in a transaction of its own; gives how many (at most ``BATCH``)."""
    async with uow:
        return await end_overdue(uow, now)


async def restart_leases(uow: UnitOfWork, *, lease_seconds: float, now: float) -> None:
    """Give every open lease a full life from now: while the dispatcher was away nobody could renew."""
    async with uow:
        await uow.leases.restart_all(now + lease_seconds)


async def end_overdue(uow: UnitOfWork, now: float) -> int:
    """End leases whose time is up: what is outstanding becomes ready."""
    late = await uow.leases.overdue(now, BATCH)
    await _end(uow, late, now)
    return len(late)


async def end_unknown(uow: UnitOfWork, *, edge: str, held: AbstractSet[LeaseKey], now: float) -> int:
    """End the open leases of an edge that it does not know of; gives how many."""
    unknown = {k: v for k, v in (await uow.leases.open_held_by(edge)).items() if k not in held}
    await _end(uow, unknown, now)
    return len(unknown)


async def _end(uow: UnitOfWork, late: Mapping[LeaseKey, EventLease], now: float) -> None:
    if not late:
        return
    accounts = await uow.accounts.some(task_id for task_id, _ in late)
    freed: dict[int, IntervalSet] = defaultdict(lambda: EMPTY)
    ended = {}
    for key, lease in late.items():
        ended[key], returned = lease.give_back(lease.outstanding)
        freed[key[0]] |= returned
    await uow.leases.save(ended)
    for task_id, events in freed.items():
        accounts[task_id].returned(len(events), now=now)
        await uow.ready.put(task_id, events)
    await uow.accounts.save(accounts.values())
