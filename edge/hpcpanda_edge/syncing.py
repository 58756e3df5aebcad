"""Telling the dispatcher: what there is to say about once a second, else only that the edge lives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Final

from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.domain.exchange import SyncReply
from hpcpanda_edge import accounts
from hpcpanda_edge.connection import Connection
from hpcpanda_edge.control import Control
from hpcpanda_edge.loops import Bells, retried
from hpcpanda_edge.reasons import told
from hpcpanda_edge.reporting import Report, apply_reply, make_report
from hpcpanda_edge.site_news import site_report

LONGEST_HEARTBEAT_S: Final = 30.0
WATCHFUL_HEARTBEAT_S: Final = 2.0
"""Time between two messages while work goes on, or while the state of a task is about to change elsewhere."""
NEWS_PACE_S: Final = 5.0
"""Why tasks are where they are, and how the site does, is not said more often."""
_LAST_WORDS_S: Final = 3.0


class Syncing:
    """The loop of syncs. ``pace_s``: they are no more frequent."""

    def __init__(
        self, control: Control, connection: Connection, bells: Bells, *, instance: str, pace_s: float
    ) -> None:
        self._control = control
        self._store = control.store
        self._connection = connection
        self._bells = bells
        self._instance = instance
        self._pace_s = pace_s
        self._news_due = 0.0

    async def run(self) -> None:
        """Report until cancelled."""
        last = 0.0
        while True:
            self._bells.say.clear()
            report = self._report()
            if report.urgent or time.monotonic() - last >= self._heartbeat_s(report):
                report = self._with_news(report)
                reply = await self._connection.sync(report.request)
                last = time.monotonic()
                with retried("answer-not-kept"):
                    self._enter(report, reply)
                self._bells.wake.set()
            await asyncio.sleep(self._pace_s)
            await self._bells.say.wait()

    async def last_words(self) -> None:
        """Report what is known at the end, if the dispatcher listens."""
        with contextlib.suppress(HpcPandaError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                report = self._report()
                reply = await self._connection.sync_once(replace(report.request, activity=()))
                self._enter(report, reply)

    def _report(self) -> Report:
        return make_report(self._store, self._control.statuses, instance=self._instance)

    def _enter(self, report: Report, reply: SyncReply) -> None:
        with self._store.transaction():
            apply_reply(self._store, self._control.steps, report, reply)
        self._control.quarantine.keep(reply.nodes)

    def _heartbeat_s(self, report: Report) -> float:
        """How long may pass without a message when nothing is urgent."""
        longest = min(self._connection.lease_s / 4, LONGEST_HEARTBEAT_S)
        watchful = report.request.activity or self._waiting()
        return min(longest, WATCHFUL_HEARTBEAT_S) if watchful else longest

    def _waiting(self) -> bool:
        """Whether the state of a task may change without this edge's doing, soon."""
        held = {v.task_id for v in self._store.leases.values()}
        return any(t in held and not accounts.in_packs(self._store, t) for t in self._store.tasks)

    def _with_news(self, report: Report) -> Report:
        """Now and then also say why tasks are where they are, and how the site does."""
        look = self._control.look()
        if look is None or time.monotonic() < self._news_due:
            return report
        self._news_due = time.monotonic() + NEWS_PACE_S
        site = site_report(look.situation.forecast.queue_waits)
        return replace(report, request=replace(report.request, reasons=told(look), site=site))
