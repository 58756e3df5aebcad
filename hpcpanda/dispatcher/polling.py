"""Hold back the answer to an edge until there is work for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hpcpanda.dispatcher.context import Context
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.domain.exchange import Capacity, Grants


async def acquire_or_wait(
    context: Context, *, edge: str, capacity: Capacity, gone: Callable[[], Awaitable[bool]]
) -> Grants:
    """Lease work, waiting at most ``capacity.wait_s`` seconds for some to appear.

    ``gone``: whether the one who asks has closed the connection. An edge that has ended is leased nothing: nobody would
    work on that before the lease is over.
    """
    deadline = context.clock() + capacity.wait_s
    while True:
        ticket = context.bell.ticket()
        grants = await acquire_work(
            context.store.writing(), edge=edge, capacity=capacity, terms=context.terms, now=context.clock()
        )
        left = deadline - context.clock()
        if grants.leases or left <= 0 or not await context.bell.wait(ticket, left):
            return grants
        if await gone():
            return grants
