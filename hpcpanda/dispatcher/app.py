"""Build the dispatcher's web application out of its parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from hpcpanda import __version__
from hpcpanda.brokerage.shares import SharePlan, ShareTree
from hpcpanda.dispatcher import problems
from hpcpanda.dispatcher.bell import Bell
from hpcpanda.dispatcher.bodies import BodyLimit
from hpcpanda.dispatcher.clock import Clock, FollowingClock, SteadyClock
from hpcpanda.dispatcher.context import Context
from hpcpanda.dispatcher.failures_file import load_rules, standard_rules
from hpcpanda.dispatcher.housekeeping import open_context, start_housekeeping
from hpcpanda.dispatcher.identity.parts import make_identity
from hpcpanda.dispatcher.reports.changes import Changes
from hpcpanda.dispatcher.reports.metrics import Metrics
from hpcpanda.dispatcher.reports.news import News
from hpcpanda.dispatcher.reports.requests import RequestMetrics
from hpcpanda.dispatcher.retention import Retention
from hpcpanda.dispatcher.routes import (
    admin,
    auth,
    changes,
    control,
    datasets,
    edges,
    health,
    metrics,
    reports,
    tasks,
)
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.shares_file import load_shares
from hpcpanda.dispatcher.store.opening import open_database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms


def build_app(
    settings: DispatcherSettings, *, clock: Clock | None = None, bell: Bell | None = None
) -> FastAPI:
    """The application; it opens its database when it starts and closes it when it stops.

    Args:
        settings: what the operator chose; the state folder must exist.
        clock: gives Unix seconds; this machine's, or that of a shared database, unless given.
        bell: wakes requests that wait for work; whoever stops the app closes it first.
    """
    context = _context(settings, clock=clock, bell=bell)
    app = FastAPI(title="hpcpanda dispatcher", version=__version__, lifespan=_lifespan(context, settings))
    app.state.context = context
    app.add_middleware(BodyLimit, limit=settings.body_limit, context=context)
    app.add_middleware(RequestMetrics, metrics=context.metrics)
    problems.install(app)
    for routes in (edges, tasks, control, datasets, health, auth, admin, reports, metrics, changes):
        app.include_router(routes.router)
    return app


def _context(settings: DispatcherSettings, *, clock: Clock | None, bell: Bell | None) -> Context:
    """What requests share."""
    database = open_database(settings)
    now = clock or (FollowingClock() if database.shared else SteadyClock())
    figures = Metrics()
    told_of = Changes(Store(database).reading, now, figures)

    def told(news: News) -> None:
        figures.told(news)
        told_of.told(news)

    store = Store(database, told=told)
    return Context(
        database=database,
        store=store,
        identity=make_identity(settings, store),
        terms=Terms(
            lease_seconds=settings.lease_seconds,
            edge_alive_seconds=settings.edge_alive_seconds,
            tree=ShareTree(load_shares(settings.shares) if settings.shares else SharePlan()),
            rules=load_rules(settings.failures) if settings.failures else standard_rules(),
        ),
        clock=now,
        bell=bell or Bell(),
        wire=database.wire(),
        metrics=figures,
        changes=told_of,
    )


def _lifespan(
    context: Context, settings: DispatcherSettings
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Opens what requests share, keeps house meanwhile, and closes it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await open_context(context)
        chores = start_housekeeping(
            context,
            sweep_seconds=settings.sweep_seconds,
            retention=Retention(prune_days=settings.prune_days, archive_days=settings.archive_days),
        )
        try:
            yield
        finally:
            context.bell.close()
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await context.wire.close()
            await context.identity.close()
            await context.database.close()

    return lifespan
