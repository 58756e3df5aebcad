"""What an edge is told with the work that it is given."""

from __future__ import annotations

from collections.abc import Sequence

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.exchange import LeaseGrant
from hpcpanda.domain.ledger import EventLease


async def grants_of(
    uow: UnitOfWork, granted: Sequence[tuple[Account, EventLease]], *, expires_in_s: float
) -> tuple[LeaseGrant, ...]:
    """The grants of new leases, each with what its task is now: the newest that an edge is told of a task counts for
    all that it holds of it."""
    specs = await uow.accounts.specs([account.task_id for account, _ in granted])
    return tuple(
        LeaseGrant(
            task_id=account.task_id,
            epoch=lease.epoch,
            events=lease.granted,
            spec=specs[account.task_id],
            expires_in_s=expires_in_s,
            event_seconds=account.event_seconds,
        )
        for account, lease in granted
    )
