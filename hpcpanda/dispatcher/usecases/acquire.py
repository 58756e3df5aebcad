"""Lease work to an edge."""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.edges import recognise
from hpcpanda.dispatcher.usecases.expiry import end_overdue
from hpcpanda.domain.exchange import Capacity, Grants, LeaseGrant
from hpcpanda.domain.ledger import EventLease

SCOUT_EVENT_SECONDS = 1.0
"""Taken for the cost of an event of which nothing is known: the first lease finds out."""
MIN_EVENT_SECONDS = 1e-9
"""No event is taken to cost less."""
ROUNDING = 1 + 1e-12
"""Keeps 1 s from holding 9 events of 0.1 s."""
MAX_LEASES = 100
"""Most leases in one answer."""
HEARTBEAT_SECONDS = 5.0
"""An edge heard of more recently is not noted again: a request without work then writes nothing."""


@dataclass(slots=True)
class _Budget:
    core_seconds: float

    def affords(self, account: Account) -> int:
        """Events of a task that fit."""
        return min(account.ready, int(self.core_seconds / _cost(account) * ROUNDING))

    def spend(self, account: Account, events: int) -> None:
        self.core_seconds -= events * _cost(account)


async def acquire_work(uow: UnitOfWork, *, edge: str, capacity: Capacity, terms: Terms, now: float) -> Grants:
    """Lease ready events for as many core-seconds as the edge offers, at least one event if there are any:
    highest priority first, then in order of submission.

    Raises:
        NotFound: the edge is not registered.
        EdgeNameTaken: another instance has taken its name.
    """
    async with uow:
        record = await recognise(uow, name=edge, instance=capacity.instance)
        if now - record.last_seen > HEARTBEAT_SECONDS:
            await uow.edges.seen(edge, now)
        while await end_overdue(uow, now):
            pass
        budget = _Budget(capacity.cores * capacity.seconds)
        granted: list[tuple[Account, EventLease]] = []
        for account in await _candidates(uow, capacity):
            events = budget.affords(account) or (0 if granted else 1)
            if not events:
                break
            lease = await _grant(uow, account, events, edge=edge, expires=now + terms.lease_seconds, now=now)
            budget.spend(account, len(lease.granted))
            granted.append((account, lease))
        await uow.accounts.save([account for account, _ in granted])
        specs = await uow.accounts.specs([account.task_id for account, _ in granted])
    return Grants(
        leases=tuple(
            LeaseGrant(
                task_id=account.task_id,
                epoch=lease.epoch,
                events=lease.granted,
                spec=specs[account.task_id],
                expires_in_s=terms.lease_seconds,
                event_seconds=account.event_seconds,
            )
            for account, lease in granted
        )
    )


async def _candidates(uow: UnitOfWork, capacity: Capacity) -> list[Account]:
    if capacity.task_id is None:
        return await uow.accounts.with_ready_events(MAX_LEASES)
    found = await uow.accounts.some((capacity.task_id,))
    return [account for account in found.values() if account.ready]


async def _grant(
    uow: UnitOfWork, account: Account, events: int, *, edge: str, expires: float, now: float
) -> EventLease:
    taken = await uow.ready.take(account.task_id, events)
    assert taken, f"task {account.task_id} counts ready events that are not there"
    epoch = account.granted(len(taken), now=now)
    lease = EventLease(epoch=epoch, holder=edge, granted=taken, outstanding=taken, expires=expires)
    await uow.leases.add(account.task_id, lease)
    return lease


def _cost(account: Account) -> float:
    return max(account.event_seconds or account.guess or SCOUT_EVENT_SECONDS, MIN_EVENT_SECONDS)
