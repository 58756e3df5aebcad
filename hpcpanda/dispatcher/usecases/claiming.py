"""Hold tasks for a lease, beside other transactions that do the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork


async def claimed(
    uow: UnitOfWork, candidates: Sequence[Account], *, holds_none: bool
) -> AsyncIterator[Account]:
    """Those of the candidates that still have something ready, in their order, each held and as it is now.

    What another transaction holds is passed over; when that is true of all of them, the first is waited for.

    Args:
        uow: the transaction.
        candidates: as they were found, best first.
        holds_none: the transaction holds no task yet, and so may wait for one without anybody waiting for ever.
    """
    for candidate in candidates:
        account = await uow.accounts.claim(candidate, wait=False)
        if account is not None:
            holds_none = False
            yield account
    if not holds_none:
        return
    for place, candidate in enumerate(candidates):
        account = await uow.accounts.claim(candidate, wait=place == 0)
        if account is not None:
            yield account
