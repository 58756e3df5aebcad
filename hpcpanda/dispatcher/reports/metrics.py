"""Figures of a dispatcher for Prometheus.

No label grows with use: routes are those of the program, states those of its tables; tasks, users, edges and paths are
never labels.
"""

from __future__ import annotations

import time

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import generate_latest
from sqlalchemy.pool import QueuePool

from hpcpanda import __version__
from hpcpanda.dispatcher.reports.news import News
from hpcpanda.dispatcher.store.accounting_figures import Figures, count_all
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.domain.errors import HpcPandaError

FIGURES_SECONDS = 10.0
"""The database is counted no more often, however many ask."""
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 35.0)
"""Bounds of the histogram of answers, seconds."""

_log = structlog.get_logger(__name__)


class Metrics:
    """All figures of one dispatcher: what it has done since it started, and what the database holds."""

    def __init__(self) -> None:
        made = self.registry = CollectorRegistry()
        ProcessCollector(registry=made)
        Info("hpcpanda_dispatcher", "What runs.", registry=made).info({"version": __version__})
        self.requests = Counter(
            "hpcpanda_requests", "Requests answered.", ["method", "route", "status"], registry=made
        )
        self.request_seconds = Histogram(
            "hpcpanda_request_seconds",
            "Time until the answer begins; what waits for work is in it.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=made,
        )
        self.contention = Counter(
            "hpcpanda_contention_retries", "Transactions done again after they met another.", registry=made
        )
        self.waiting = Gauge("hpcpanda_waiting_requests", "Requests that wait for work.", registry=made)
        self.change_clients = Gauge("hpcpanda_change_clients", "Change streams that are open.", registry=made)
        self.change_signals = Counter(
            "hpcpanda_change_signals", "Signals put before change streams.", registry=made
        )
        self.change_cut = Counter(
            "hpcpanda_change_clients_cut",
            "Change streams ended since their clients did not read.",
            registry=made,
        )
        self._leases = Counter("hpcpanda_leases_granted", "Leases granted.", registry=made)
        self._leased = Counter("hpcpanda_events_leased", "Events and jobs in them.", registry=made)
        self._expired = Counter(
            "hpcpanda_leases_expired", "Leases ended before their holders were done.", registry=made
        )
        self._commits = Counter("hpcpanda_commits", "Commits of edges taken in.", registry=made)
        self._settled = Counter(
            "hpcpanda_events_settled", "Events and jobs recorded, by outcome.", ["outcome"], registry=made
        )
        self._tasks = Gauge("hpcpanda_tasks", "Tasks by state.", ["state"], registry=made)
        self._events = Gauge(
            "hpcpanda_open_events", "Events and jobs of tasks that go on.", ["place"], registry=made
        )
        self._edges = Gauge("hpcpanda_edges", "Edges registered.", ["alive"], registry=made)
        self._connections = Gauge(
            "hpcpanda_database_connections", "Connections that write.", ["use"], registry=made
        )
        self._database_up = Gauge("hpcpanda_database_up", "Whether the database answers.", registry=made)
        self._done, self._failed = (self._settled.labels(outcome) for outcome in ("done", "failed"))
        self._counted = 0.0

    def told(self, news: News) -> None:
        """Count what a transaction has done."""
        if news.leases:
            self._leases.inc(news.leases)
            self._leased.inc(news.leased)
        if news.commits:
            self._commits.inc(news.commits)
            self._done.inc(news.done)
            self._failed.inc(news.failed)
        if news.expired:
            self._expired.inc(news.expired)

    async def page(self, database: Database, *, alive_since: float) -> bytes:
        """All figures as text, in Prometheus' format 0.0.4; those of the database are at most ten seconds old.

        A database that does not answer is one of the figures.
        """
        if time.monotonic() - self._counted >= FIGURES_SECONDS or not self._counted:
            await self._count(database, alive_since)
        pool = database.engine.sync_engine.pool
        if isinstance(pool, QueuePool):
            self._connections.labels("busy").set(pool.checkedout())
            self._connections.labels("idle").set(pool.checkedin())
        return generate_latest(self.registry)

    async def _count(self, database: Database, alive_since: float) -> None:
        self._counted = time.monotonic()
        try:
            async with database.read() as connection:
                figures = await count_all(connection, alive_since=alive_since)
        except HpcPandaError as problem:
            _log.warning("metrics.not-counted", error=str(problem))
            self._database_up.set(0)
        else:
            self._database_up.set(1)
            self._enter(figures)

    def _enter(self, figures: Figures) -> None:
        for state, count in figures.tasks.items():
            self._tasks.labels(state).set(count)
        for place, count in figures.events.items():
            self._events.labels(place).set(count)
        self._edges.labels("yes").set(figures.edges_alive)
        self._edges.labels("no").set(figures.edges - figures.edges_alive)
