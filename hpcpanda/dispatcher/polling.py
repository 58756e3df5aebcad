"""Hold back the answer to an edge until there is work for it."""

from __future__ import annotations

from hpcpanda.dispatcher.context import Context
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.domain.exchange import Capacity, Grants


async def acquire_or_wait(context: Context, *, edge: str, capacity: Capacity) -> Grants:
    """Lease work, waiting at most ``capacity.wait_s`` seconds for some to appear."""
    deadline = context.clock() + capacity.wait_s
    while True:
        ticket = context.bell.ticket()
        grants = await acquire_work(
            context.store.writing(), edge=edge, capacity=capacity, terms=context.terms, now=context.clock()
        )
        left = deadline - context.clock()
        if grants.leases or left <= 0 or not await context.bell.wait(ticket, left):
            return grants
