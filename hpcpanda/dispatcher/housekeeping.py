"""What a dispatcher does without being asked, as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from hpcpanda.dispatcher.chains.growing import grow_tasks, tasks_to_grow
from hpcpanda.dispatcher.clock import FollowingClock
from hpcpanda.dispatcher.context import Context
from hpcpanda.dispatcher.generation.judging import judge_scouts, tasks_to_judge
from hpcpanda.dispatcher.retention import Retention, retain
from hpcpanda.dispatcher.usecases.expiry import beat, sweep
from hpcpanda.dispatcher.usecases.ordering import forget_usage
from hpcpanda.dispatcher.usecases.tokens import forget_ended
from hpcpanda.domain.errors import HpcPandaError

BEAT_SECONDS = 5.0
"""Between two notes that this dispatcher is there."""
SCOUT_SECONDS = 2.0
"""Between two looks whether the scouts of a task are back."""
GROW_SECONDS = 2.0
"""Between two looks whether files have come that tasks wait for."""
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
    context.bell.when_closed(context.changes.close)
    context.changes.join(context.wire)
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

    async def release_rest() -> None:
        for task_id in await tasks_to_judge(context.store.reading(), now=context.clock()):
            if await judge_scouts(context.store.writing(), task_id=task_id, now=context.clock()):
                _log.info("scouts.judged", task=task_id)
                context.bell.ring()

    async def be_there() -> None:
        await note_presence(context)

    return (
        asyncio.create_task(_for_ever(be_there, BEAT_SECONDS), name="pulse"),
        asyncio.create_task(_for_ever(end_leases, sweep_seconds), name="lease-sweep"),
        asyncio.create_task(_for_ever(put_away, sweep_seconds), name="retention"),
        asyncio.create_task(_for_ever(forget, FORGET_SECONDS), name="ended-tokens"),
        asyncio.create_task(_for_ever(release_rest, SCOUT_SECONDS), name="scouts"),
        asyncio.create_task(_for_ever(partial(let_tasks_grow, context), GROW_SECONDS), name="growth"),
        asyncio.create_task(context.changes.run(), name="changes"),
    )


async def let_tasks_grow(context: Context) -> None:
    """Take in the files that have come for tasks that wait for them."""
    before: list[int] = []
    while (task_ids := await tasks_to_grow(context.store.reading())) and task_ids != before:
        before = task_ids
        events = await grow_tasks(context.store.writing(), task_ids=task_ids, now=context.clock())
        _log.info("tasks.grown", tasks=len(task_ids), events=events)
        if events:
            context.bell.ring()


async def _for_ever(act: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await act()
        except HpcPandaError as problem:
            _log.warning("housekeeping.failed", error=str(problem))
        except SQLAlchemyError:
            _log.exception("housekeeping.failed")
