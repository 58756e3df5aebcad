"""The edge's life: register, then pull, plan and report until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Final

import structlog

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.site import Site
from hpcpanda_edge.connection import NAME_PATIENCE_S, Connection
from hpcpanda_edge.control import Control
from hpcpanda_edge.loops import Bells, retried, rings
from hpcpanda_edge.ports import DispatcherPort, SchedulerPort
from hpcpanda_edge.pulling import Pulling
from hpcpanda_edge.staging import Stager
from hpcpanda_edge.state_folder import StateFolder
from hpcpanda_edge.store import Store
from hpcpanda_edge.syncing import Syncing
from hpcpanda_edge.windows.choose import make_window_probe
from hpcpanda_edge.windows.watch import WindowWatch

ROUND_S: Final = 0.5
"""Time between two rounds when nothing wakes the edge."""
FIRST_LOOK_S: Final = 10.0
"""Longest wait for the first look at the backfill windows."""

_log = structlog.get_logger("hpcpanda.edge")


class Edge:
    """The login-node service of one site.

    Args:
        site: the site file.
        dispatcher: where work comes from.
        scheduler: where allocations go.
        drain_on_stop: end all allocations before ending; else they go on and are picked up at the next start.
        round_s: time between two rounds.
        name_patience_s: how long to wait while another living edge has the name.
    """

    def __init__(
        self,
        site: Site,
        dispatcher: DispatcherPort,
        scheduler: SchedulerPort,
        *,
        drain_on_stop: bool = False,
        round_s: float = ROUND_S,
        name_patience_s: float = NAME_PATIENCE_S,
    ) -> None:
        self._site = site
        self._folder = StateFolder.of(site.spool)
        self._instance = self._folder.instance()
        self._store = Store(self._folder.database)
        spool = Spool(Path(site.spool))
        self._windows = WindowWatch(make_window_probe(site), every_s=site.scheduler.poll_seconds)
        self._stager = Stager(spool, site)
        self.control = Control(self._store, spool, site, scheduler, self._windows, self._stager)
        self._drain_on_stop = drain_on_stop
        self._round_s = round_s
        self._stop = asyncio.Event()
        self._bells = Bells()
        self._connection = Connection(
            dispatcher,
            site,
            instance=self._instance,
            name_pace_s=min(5.0, round_s * 10),
            name_patience_s=name_patience_s,
        )
        self._pulling = Pulling(self.control, self._connection, self._bells, instance=self._instance)
        self._syncing = Syncing(
            self.control,
            self._connection,
            self._bells,
            instance=self._instance,
            pace_s=min(1.0, max(0.1, site.allocation.sync_s)),
        )
        self._trouble: str | None = None

    def stop(self) -> None:
        """End in order; returns at once."""
        self._stop.set()

    def drain(self) -> None:
        """Take nothing new, end all allocations, report everything, then end."""
        if not self.control.draining:
            _log.info("draining")
        self.control.draining = True
        self._bells.wake.set()

    async def run(self) -> None:
        """Live until stopped.

        Raises:
            EdgeNameTaken: another living edge keeps the name.
            HpcPandaError: the dispatcher refuses this edge, for instance its token.
        """
        with contextlib.suppress(FileNotFoundError):
            self._folder.drain_request.unlink()
        _log.info("edge-started", site=self._site.name, spool=self._site.spool, instance=self._instance)
        stopped = asyncio.create_task(self._stop.wait(), name="edge-stop")
        rounds = asyncio.create_task(self._rounds(), name="edge-rounds")
        talk = asyncio.create_task(self._talk(), name="edge-talk")
        windows = asyncio.create_task(self._windows.run(), name="edge-windows")
        staging = asyncio.create_task(self._stager.run(), name="edge-staging")
        tasks = {stopped, rounds, talk, windows, staging}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._drain_on_stop and stopped.done() and not rounds.done():
                self.drain()
                await asyncio.wait({rounds, talk}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._syncing.last_words()
            with retried("learnt-not-kept"):
                self.control.learner.save(time.time(), at_once=True)
            self._store.close()
            with contextlib.suppress(OSError):
                self._folder.drain_request.unlink(missing_ok=True)
            _log.info("edge-stopped", site=self._site.name)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _rounds(self) -> None:
        """Round after round, until a drain is complete."""
        submitting: asyncio.Task[None] | None = None
        # without it the first plan would not know of windows
        await rings(self._windows.looked, within_s=FIRST_LOOK_S)
        try:
            while not (self.control.draining and self._all_said()):
                self._bells.wake.clear()
                try:
                    await self._round()
                    if submitting is None or submitting.done():
                        if submitting is not None:
                            await submitting
                        submitting = asyncio.create_task(self._submit(), name="edge-submit")
                except (OSError, Unavailable) as problem:
                    self._note_trouble(str(problem))
                else:
                    self._note_trouble(None)
                self._bells.round_made()
                await rings(self._bells.wake, within_s=self._round_s)
        finally:
            if submitting is not None and not submitting.done():
                submitting.cancel()
                await asyncio.gather(submitting, return_exceptions=True)

    async def _round(self) -> None:
        if self._folder.drain_request.exists():
            self.drain()
        held = self.control.open_allocations
        await self.control.round()
        if self.control.open_allocations < held:
            self._bells.eased.set()

    def _note_trouble(self, trouble: str | None) -> None:
        """Say once what keeps rounds from working, and when they work again: a full disk lasts for many rounds."""
        if trouble == self._trouble:
            return
        if trouble is None:
            _log.info("rounds-work-again")
        else:
            _log.error("round-failed", error=trouble)
        self._trouble = trouble

    async def _submit(self) -> None:
        await self.control.submitter.submit_planned()
        await self.control.submitter.resolve_unknown()

    def _all_said(self) -> bool:
        """Whether nothing is left of a drained edge's work."""
        returned = not any(v.returning or v.ledger.ready for v in self._store.leases.values())
        return self.control.idle and returned and not self._store.commits and self.control.usage.all_said

    async def _talk(self) -> None:
        """Register, then pull and report side by side."""
        await self._connection.register(held=tuple(v.key for v in self._store.leases.values()))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._syncing.run(), name="edge-report")
                self._pulling.start(group)
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None


async def run_until_signalled(edge: Edge) -> None:
    """Run an edge; SIGTERM and SIGINT stop it, a second one kills."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        edge.stop()

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        await edge.run()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
