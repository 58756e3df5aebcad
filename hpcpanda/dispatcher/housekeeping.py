"""What a dispatcher does without being asked, as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from hpcpanda.dispatcher.clock import FollowingClock
from hpcpanda.dispatcher.context import Context
from hpcpanda.dispatcher.retention import Retention, retain
from hpcpanda.dispatcher.usecases.expiry import beat, sweep
from hpcpanda.dispatcher.usecases.ordering import forget_usage
from hpcpanda.dispatcher.usecases.tokens import forget_ended
from hpcpanda.domain.errors import HpcPandaError

BEAT_SECONDS = 5.0
"""Between two notes that this dispatcher is there."""
FORGET_SECONDS = 300.0
"""Between two searches for tokens and logins whose time is up."""

_log = structlog.get_logger(__name__)


async def open_context(context: Context) -> None:
    """Make everything ready for the first request.

    Raises:
        Unavailable: the database cannot be used.
    """
    await context.database.migrate()
    await note_presence(context, starting=True)
    context.bell.join(context.wire)
    await context.wire.open()


async def note_presence(context: Context, *, starting: bool = False) -> None:
    """Go by the time that all replicas go by, and note that this one is there."""
    if isinstance(context.clock, FollowingClock):
        await context.clock.follow(context.database.time)
    restarted = await beat(
        context.store.writing(),
        lease_seconds=context.terms.lease_seconds,
        now=context.clock(),
        alone=starting and not context.database.shared,
    )
    if restarted:
        _log.info("lease.restarted", why="no dispatcher was there to renew them")


def start_housekeeping(
    context: Context, *, sweep_seconds: float, retention: Retention
) -> tuple[asyncio.Task[None], ...]:
    """Begin; cancel the tasks to end it."""

    async def end_leases() -> None:
        ended = await sweep(context.store.writing(), now=context.clock())
        if ended:
            _log.info("lease.sweep.ended", leases=ended)
            context.bell.ring()

    async def put_away() -> None:
        while moved := await retain(context.store.writing, retention=retention, now=context.clock()):
            _log.info("retention.moved", tasks=moved)

    async def forget() -> None:
        await forget_ended(context.store.writing(), now=context.clock())
        await forget_usage(context.store.writing(), tree=context.terms.tree, now=context.clock())

    async def be_there() -> None:
        await note_presence(context)

    return (
        asyncio.create_task(_for_ever(be_there, BEAT_SECONDS), name="pulse"),
        asyncio.create_task(_for_ever(end_leases, sweep_seconds), name="lease-sweep"),
        asyncio.create_task(_for_ever(put_away, sweep_seconds), name="retention"),
        asyncio.create_task(_for_ever(forget, FORGET_SECONDS), name="ended-tokens"),
    )


async def _for_ever(act: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await act()
        except HpcPandaError as problem:
            _log.warning("housekeeping.failed", error=str(problem))
        except SQLAlchemyError:
            _log.exception("housekeeping.failed")
