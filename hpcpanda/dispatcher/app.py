"""Build the dispatcher's web application out of its parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from hpcpanda import __version__
from hpcpanda.dispatcher import problems
from hpcpanda.dispatcher.auth import Bearers
from hpcpanda.dispatcher.bell import Bell
from hpcpanda.dispatcher.clock import Clock, SteadyClock
from hpcpanda.dispatcher.context import Context
from hpcpanda.dispatcher.limits import BodyLimit
from hpcpanda.dispatcher.routes import edges, health, tasks
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.expiry import restart_leases, sweep
from hpcpanda.domain.errors import HpcPandaError

_log = structlog.get_logger(__name__)


def build_app(
    settings: DispatcherSettings, *, clock: Clock | None = None, bell: Bell | None = None
) -> FastAPI:
    """The application; it opens its database when it starts and closes it when it stops.

    Args:
        settings: what the operator chose; the state folder must exist.
        clock: gives Unix seconds; a :class:`SteadyClock` unless given.
        bell: wakes requests that wait for work; whoever stops the app closes it first.
    """
    database = Database(settings.database)
    store = Store(database)
    context = Context(
        database=database,
        store=store,
        bearers=Bearers(store),
        terms=Terms(lease_seconds=settings.lease_seconds, edge_alive_seconds=settings.edge_alive_seconds),
        clock=clock or SteadyClock(),
        bell=bell or Bell(),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await _open(context)
        sweeper = asyncio.create_task(_sweep_for_ever(context, settings.sweep_seconds), name="lease-sweep")
        try:
            yield
        finally:
            context.bell.close()
            sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeper
            await database.close()

    app = FastAPI(title="hpcpanda dispatcher", version=__version__, lifespan=lifespan)
    app.state.context = context
    app.add_middleware(BodyLimit, limit=settings.body_limit)
    problems.install(app)
    for routes in (tasks, edges, health):
        app.include_router(routes.router)
    return app


async def _open(context: Context) -> None:
    await context.database.migrate()
    await restart_leases(
        context.store.writing(), lease_seconds=context.terms.lease_seconds, now=context.clock()
    )


async def _sweep_for_ever(context: Context, every_s: float) -> None:
    """End leases whose time is up, as long as the app runs."""
    while True:
        await asyncio.sleep(every_s)
        try:
            ended = await sweep(context.store.writing(), now=context.clock())
        except (HpcPandaError, SQLAlchemyError):
            _log.exception("lease.sweep.failed")
            continue
        if ended:
            _log.info("lease.sweep.ended", leases=ended)
            context.bell.ring()
