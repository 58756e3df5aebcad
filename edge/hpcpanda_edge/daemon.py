"""The edge's life: register, then pull, plan and report until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, TypeVar

import structlog

import hpcpanda
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import EdgeNameTaken, HpcPandaError, NotFound, Unavailable
from hpcpanda.domain.exchange import MAX_UPDATES, Capacity, EdgeInfo, EdgeRegistration, Grants
from hpcpanda.domain.site import Site
from hpcpanda.planning.actions import GiveBack, Want
from hpcpanda_edge import accounts
from hpcpanda_edge.beginning_again import ask_anew, begin_again
from hpcpanda_edge.control import Control
from hpcpanda_edge.ports import DispatcherPort, SchedulerPort
from hpcpanda_edge.reasons import told
from hpcpanda_edge.reporting import Report, apply_reply, make_report
from hpcpanda_edge.site_news import site_report
from hpcpanda_edge.staging import Stager
from hpcpanda_edge.state_folder import StateFolder
from hpcpanda_edge.store import Store
from hpcpanda_edge.windows.choose import make_window_probe
from hpcpanda_edge.windows.watch import WindowWatch

ROUND_S: Final = 0.5
"""Time between two rounds when nothing wakes the edge."""
LONG_POLL_S: Final = 20.0
"""How long the dispatcher may wait for work to give."""
LONGEST_HEARTBEAT_S: Final = 30.0
NEWS_PACE_S: Final = 5.0
"""Why tasks are where they are, and how the site does, is not said more often."""
WATCHFUL_HEARTBEAT_S: Final = 2.0
"""Time between two messages while work goes on, or while the state of a task is about to change elsewhere."""
FIRST_LOOK_S: Final = 10.0
"""Longest wait for the first look at the backfill windows."""
NAME_PATIENCE_S: Final = 150.0
"""How long an edge waits for its name to become free."""
_LONGEST_PAUSE_S: Final = 30.0
_EMPTY_PAUSE_S: Final = 1.0

_LONGER_S: Final = 10.0
"""Room for jobs that may last so much longer is worth a question of its own."""

_Lane = Literal["events", "jobs"] | None
_LANES: Final[tuple[_Lane, ...]] = (None, "events", "jobs")
"""Asks of each kind wait at the dispatcher beside those of the others."""

T = TypeVar("T")

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
        self._dispatcher = dispatcher
        self._folder = StateFolder.of(site.spool)
        self._instance = self._folder.instance()
        self._store = Store(self._folder.database)
        spool = Spool(Path(site.spool))
        self._windows = WindowWatch(make_window_probe(site), every_s=site.scheduler.poll_seconds)
        self._stager = Stager(spool, site)
        self.control = Control(self._store, spool, site, scheduler, self._windows, self._stager)
        self._drain_on_stop = drain_on_stop
        self._round_s = round_s
        self._name_patience_s = name_patience_s
        self._lease_s = 60.0
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._planned = asyncio.Event()
        self._say = asyncio.Event()
        self._eased = asyncio.Event()
        self._away_since: float | None = None
        self._trouble: str | None = None
        self._asked: dict[_Lane, Want] = {}
        self._news_due = 0.0

    def stop(self) -> None:
        """End in order; returns at once."""
        self._stop.set()

    def drain(self) -> None:
        """Take nothing new, end all allocations, report everything, then end."""
        if not self.control.draining:
            _log.info("draining")
        self.control.draining = True
        self._wake.set()

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
            await self._last_words()
            with self._retried("learnt-not-kept"):
                self.control.learner.save(time.time(), at_once=True)
            self._store.close()
            with contextlib.suppress(OSError):
                self._folder.drain_request.unlink(missing_ok=True)
            _log.info("edge-stopped", site=self._site.name)
        for result in results:
            if isinstance(result, Exception):
                raise result

    # ---- rounds ----

    async def _rounds(self) -> None:
        """Round after round, until a drain is complete."""
        submitting: asyncio.Task[None] | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):  # without it the first plan would not know of windows
                await self._windows.looked.wait()
        try:
            while not (self.control.draining and self._all_said()):
                self._wake.clear()
                try:
                    if self._folder.drain_request.exists():
                        self.drain()
                    held = self.control.open_allocations
                    await self.control.round()
                    if self.control.open_allocations < held:
                        self._eased.set()
                    if submitting is None or submitting.done():
                        if submitting is not None:
                            await submitting
                        submitting = asyncio.create_task(self._submit(), name="edge-submit")
                except (OSError, Unavailable) as problem:
                    self._note_trouble(str(problem))
                else:
                    self._note_trouble(None)
                self._planned.set()
                self._say.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._round_s):
                        await self._wake.wait()
        finally:
            if submitting is not None and not submitting.done():
                submitting.cancel()
                await asyncio.gather(submitting, return_exceptions=True)

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

    # ---- the dispatcher ----

    async def _talk(self) -> None:
        """Register, then pull and report side by side."""
        await self._register(at_start=True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reports(), name="edge-report")
                for only in _LANES:
                    group.create_task(self._pull(only, beside=False), name=f"edge-pull-{only}")
                    group.create_task(self._pull(only, beside=True), name=f"edge-pull-{only}-beside")
                group.create_task(self._top_up(), name="edge-top-up")
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _register(self, *, at_start: bool = False) -> None:
        """Introduce this edge; at its start also say which leases it knows of, since an answer with others
        may have been lost with the process before."""
        held = tuple(v.key for v in self._store.leases.values()) if at_start else None
        registration = EdgeRegistration(
            instance=self._instance,
            cores=self._site.node_limit * self._site.nodes.cores,
            version=hpcpanda.__version__,
            held=held if held is None or len(held) <= MAX_UPDATES else None,
            architecture=self._site.architecture,
            tags=self._site.tags,
        )
        give_up = time.monotonic() + self._name_patience_s
        while True:
            try:
                info: EdgeInfo = await self._patiently(
                    lambda: self._dispatcher.register_edge(self._site.name, registration)
                )
            except EdgeNameTaken as problem:
                if time.monotonic() > give_up:
                    raise EdgeNameTaken(
                        f"{problem}; or give this one another name in its site file"
                    ) from None
                _log.warning("edge-name-taken", error=str(problem))
                await asyncio.sleep(min(5.0, self._round_s * 10))
                continue
            self._lease_s = info.lease_seconds
            _log.info("edge-registered", name=info.name, lease_seconds=info.lease_seconds)
            return

    async def _registered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call; register again when the dispatcher does not know this edge any more."""
        while True:
            try:
                return await self._patiently(call)
            except (NotFound, EdgeNameTaken) as problem:
                _log.warning("registration-lost", error=str(problem))
                await self._register()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call again and again while the dispatcher is away."""
        pause_s = 0.25
        while True:
            try:
                answer = await call()
            except HpcPandaError as problem:
                if not isinstance(problem, Unavailable) and type(problem) is not HpcPandaError:
                    raise
                if self._away_since is None:
                    self._away_since = time.monotonic()
                    _log.warning("dispatcher-away", error=str(problem))
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if self._away_since is not None:
                _log.info("dispatcher-back", seconds=round(time.monotonic() - self._away_since, 1))
                self._away_since = None
            return answer

    async def _reports(self) -> None:
        """Say what there is to say, about once a second; else only that the edge lives."""
        pace = min(1.0, max(0.1, self._site.allocation.sync_s))
        last = 0.0
        while True:
            self._say.clear()
            report = make_report(self._store, self.control.statuses, instance=self._instance)
            heartbeat = min(self._lease_s / 4, LONGEST_HEARTBEAT_S)
            if report.request.activity or self._waiting():
                heartbeat = min(heartbeat, WATCHFUL_HEARTBEAT_S)
            if report.urgent or time.monotonic() - last >= heartbeat:
                report = self._with_news(report)
                reply = await self._registered(
                    lambda: self._dispatcher.sync(self._site.name, report.request)  # noqa: B023
                )
                last = time.monotonic()
                with self._retried("answer-not-kept"), self._store.transaction():
                    apply_reply(self._store, self.control.steps, report, reply)
                self._wake.set()
            await asyncio.sleep(pace)
            await self._say.wait()

    def _with_news(self, report: Report) -> Report:
        """Now and then also say why tasks are where they are, and how the site does."""
        look = self.control.look()
        if look is None or time.monotonic() < self._news_due:
            return report
        self._news_due = time.monotonic() + NEWS_PACE_S
        site = site_report(look.situation.forecast.queue_waits)
        return replace(report, request=replace(report.request, reasons=told(look), site=site))

    def _waiting(self) -> bool:
        """Whether the state of a task may change without this edge's doing, soon."""
        return any(len(accounts.leases_of(self._store, t)) and not self._busy(t) for t in self._store.tasks)

    def _busy(self, task_id: int) -> bool:
        return any(
            p.task_id == task_id
            for r in self._store.allocations.values()
            for k in r.packs
            for p in k.open_parts
        )

    async def _pull(self, only: _Lane, *, beside: bool) -> None:
        """Ask for events, or for jobs, whenever there is room for them; the dispatcher holds the answer back until
        there are some.

        ``beside``: ask only while a question is open that was asked when there was less room. That one cannot be taken
        back, for its answer may be on the way; but a job that fits only now must not wait for it.
        """
        useless = 0
        while True:
            self._planned.clear()
            await self._planned.wait()
            want = next((w for w in self.control.plan.wants if w.task_id is None and w.only == only), None)
            if want is None or self.control.draining or self.control.submitter.troubled:
                continue
            asked = self._asked.get(only)
            if beside and (asked is None or not outgrown(asked, want)):
                continue
            if not beside:
                self._asked[only] = want
            try:
                got = await self._fetch(want, wait_s=LONG_POLL_S)
            finally:
                if not beside:
                    del self._asked[only]
            if not got:
                continue
            returned = any(isinstance(action, GiveBack) for action in self.control.plan.actions)
            useless = useless + 1 if returned else 0
            if useless:
                await self._pause(min(2.0**useless, _LONGEST_PAUSE_S))

    async def _pause(self, seconds: float) -> None:
        """What is offered cannot be used now: do not ask for it again and again, until an allocation has ended."""
        self._eased.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._eased.wait()

    async def _top_up(self) -> None:
        """Fetch more work for packs that will soon have none."""
        empty: dict[int, float] = {}
        while True:
            self._planned.clear()
            await self._planned.wait()
            for want in self.control.plan.wants:
                if want.task_id is None or self.control.draining:
                    continue
                if time.monotonic() < empty.get(want.task_id, 0.0):
                    continue
                if not await self._fetch(want, wait_s=0.0):
                    empty[want.task_id] = time.monotonic() + _EMPTY_PAUSE_S

    async def _fetch(self, want: Want, *, wait_s: float) -> int:
        capacity = Capacity(
            instance=self._instance,
            cores=want.cores,
            seconds=want.seconds,
            task_id=want.task_id,
            only=want.only,
            room=want.room,
            without=want.without,
            wait_s=wait_s,
        )
        grants: Grants = await self._registered(lambda: self._dispatcher.acquire(self._site.name, capacity))
        if not grants.leases:
            return 0
        events = 0
        with self._retried("grant-not-kept"):
            with self._store.transaction():
                for grant in grants.leases:
                    begin_again(self._store, self.control.steps, grant.task_id, grant.first_epoch)
                    ask_anew(self._store, self.control.steps, grant)
                events = accounts.take_grants(self._store, grants)
            _log.info("leased", events=events, tasks=sorted({g.task_id for g in grants.leases}))
            self.control.make_plan()
        self._wake.set()
        return events

    @contextlib.contextmanager
    def _retried(self, event: str) -> Iterator[None]:
        """A disk that refuses is reported; nothing has changed, and the same comes up again."""
        try:
            yield
        except (OSError, Unavailable) as problem:
            _log.error(event, error=str(problem))

    async def _last_words(self) -> None:
        """Report what is known at the end, if the dispatcher listens."""
        with contextlib.suppress(HpcPandaError, TimeoutError):
            async with asyncio.timeout(3.0):
                report = make_report(self._store, self.control.statuses, instance=self._instance)
                request = replace(report.request, activity=())
                reply = await self._dispatcher.sync(self._site.name, request)
                with self._store.transaction():
                    apply_reply(self._store, self.control.steps, report, reply)


def outgrown(asked: Want, want: Want) -> bool:
    """Whether jobs fit now that did not when the first was asked: on more nodes, or for clearly longer."""
    if want.room is None:
        return False
    room = asked.room
    return room is None or want.room.nodes > room.nodes or want.room.seconds > room.seconds + _LONGER_S


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
