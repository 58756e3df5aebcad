"""Hold tasks for a lease, beside other transactions that do the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork


async def claimed(
    uow: UnitOfWork,
    candidates: Sequence[Account],
    choose: Callable[[Sequence[Account]], Sequence[Account]],
    *,
    holds_none: bool,
) -> AsyncIterator[list[Account]]:
    """Those of the candidates that are chosen and still have something ready, in their order, each held and as it is
    now; some at a time.

    What another transaction holds is passed over; when that is true of all of them, the first is waited for.

    Args:
        uow: the transaction.
        candidates: as they were found, best first.
        choose: those to hold next, of the candidates that were not tried yet. Asked again when what it got was dealt
            with; it ends the search by giving none.
        holds_none: the transaction holds no task yet, and so may wait for one without anybody waiting for ever.
    """
    for awaited in ([], candidates[:1]):
        held = await uow.accounts.claim(awaited, wait=True) if awaited else []
        if held:
            yield held
        left = candidates[len(awaited) :]
        while left and (chosen := choose(left)):
            held = await uow.accounts.claim(chosen)
            if held:
                holds_none = False
                yield held
            tried = {candidate.task_id for candidate in chosen}
            left = [candidate for candidate in left if candidate.task_id not in tried]
        if not holds_none:
            return
