"""One allocation of one node that streams events: the rules of production in simulated time.

:class:`~hpcpanda.allocation.coordinator.Coordinator` and :class:`~hpcpanda.allocation.node_work.NodeWork` decide which
core runs what, and when nothing is begun any more; leases are those of
:class:`~hpcpanda.domain.ledger.EventLedger`. Simulated is what surrounds them: the clock, the workers, the journal with its
syncs, the head's drain, a node that fails. Messages take no time; in reality they take microseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from hpcpanda.allocation.coordinator import Coordinator, Send
from hpcpanda.allocation.messages import Chunk, SetAside
from hpcpanda.allocation.node_work import NodeWork
from hpcpanda.allocation.plan import LeasedEvents, TaskWork
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLedger, FailedEvent
from hpcpanda.domain.site import Site
from hpcpanda.domain.task import TaskSpec
from hpcpanda.planning.sharing import UNKNOWN_EVENT_SECONDS
from hpcpanda.simulate.perlmutter.node_workers import Workers
from hpcpanda.simulate.trace import Floats

_TICK_S: Final = 15.0
"""How often the edge reads the journal, commits, and tops the pack up."""
_AHEAD: Final = 2.0
"""It tops up to so many look-aheads, as the planner does."""
_LEASE_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTask:
    """A task of events, and what each of them costs."""

    spec: TaskSpec
    ledger: EventLedger
    reach: Floats
    """Core-seconds of all events before event i; one longer than the event space."""

    def seconds(self, first: int, last: int) -> float:
        """Cost of the events of a range."""
        return float(self.reach[last] - self.reach[first])


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShape:
    """The allocation that the events run in."""

    site: Site
    """Cores of its node, margin, grace time, look-ahead, sync time."""
    walltime_s: float
    startup_s: float
    """From the begin of the allocation to the first event: batch script, MPI program, the payload's set-up."""


@dataclass(slots=True)
class LifeAccount:
    """What became of an allocation; core-seconds, unless said otherwise."""

    useful: float = 0.0
    lost_drain: float = 0.0
    """Cut off when the grace time of the drain was over."""
    lost_node: float = 0.0
    """In flight, or finished and not yet on the disk, when the node failed."""
    lost_timeout: float = 0.0
    startup: float = 0.0
    idle: float = 0.0
    end: float = 0.0
    """Seconds from its begin to its end."""
    leases: int = 0
    given_back: int = 0
    """Events."""
    event_seconds: float | None = None
    """Cost of an event as the pack told it last."""
    half_idle: bool = False
    """Half of the cores, or more, were seen without work between start-up and drain."""

    @property
    def total(self) -> float:
        """All core-seconds accounted for."""
        lost = self.lost_drain + self.lost_node + self.lost_timeout
        return self.useful + lost + self.startup + self.idle


class NodeLife:
    """An allocation from its begin to its end."""

    def __init__(
        self,
        task: StreamTask,
        shape: NodeShape,
        *,
        holder: str,
        lost_at: float = math.inf,
        event_seconds: float | None = None,
    ) -> None:
        """``lost_at``: when the node fails. ``event_seconds``: cost of an event as the edge knows it."""
        self._task = task
        self._shape = shape
        self._settings = shape.site.allocation
        self._holder = holder
        self._cores = shape.site.nodes.cores
        self._lost_at = lost_at
        self._deadline = shape.walltime_s - self._settings.margin_s
        begin = shape.startup_s
        self._account = LifeAccount(event_seconds=event_seconds)
        self._failed: list[tuple[int, FailedEvent]] = []
        self._quiet_since: float | None = None
        work = TaskWork(task_id=1, spec=task.spec, events=(), event_seconds=event_seconds)
        self._coordinator = Coordinator(work, ranks=1, cores=self._cores, now=begin)
        self._work = NodeWork(
            slots=self._cores,
            cores_in_pack=self._cores,
            policy=task.spec.ranges,
            prior=event_seconds or task.spec.resources.event_seconds,
            deadline=self._deadline,
        )
        self._workers = Workers(
            self._work, seconds=task.seconds, timeout_s=task.spec.resources.range_timeout_s, begin=begin
        )

    def run(self) -> LifeAccount:
        """Live it; what it did not finish is ready again in the ledger."""
        account, begin = self._account, self._shape.startup_s
        account.startup = self._cores * min(begin, self._lost_at)
        account.end = self._lost_at
        if self._lost_at > begin:
            ended_early = self._stream(begin, min(self._deadline, self._lost_at))
            if ended_early is not None:
                account.end = ended_early
            elif self._lost_at > self._deadline:
                account.end = self._drain()
            self._close(account.end)
        account.given_back = len(self._task.ledger.release(self._holder))
        self._task.ledger.forget_closed()
        return account

    def _stream(self, begin: float, until: float) -> float | None:
        """Work up to the drain, or the node's end; gives the time when there has been nothing to do for a while."""
        tick = begin
        while True:
            now = min(tick, self._workers.next_end)
            if now >= until:
                return None
            if now == tick:
                tick += _TICK_S
                if self._edge_is_done(now):
                    return now
            else:
                self._workers.end_range()
                if self._work.has_failures:
                    self._report(now)
                self._ask(now)

    def _drain(self) -> float:
        """The head ends the pack at the margin before the wall: running ranges have the grace time; gives the end."""
        now = self._deadline
        self._coordinator.drain(self._settings.grace_s)
        self._workers.stop(now)
        until = min(now + self._settings.grace_s, self._lost_at)
        while self._work.in_hand:
            if self._workers.next_end > until:
                return until
            now = self._workers.next_end
            self._workers.end_range()
        return now

    def _edge_is_done(self, now: float) -> bool:
        """The edge looks: commits, tops up; whether there is nothing to do and has not been for a while."""
        self._report(now)
        self._commit(now)
        self._top_up(now)
        self._ask(now)
        if self._work.stopped:
            return False
        self._account.half_idle |= self._workers.idle * 2 >= self._cores and not self._coordinator.idle
        if not self._coordinator.idle:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = now
        return now - self._quiet_since >= self._settings.linger_s

    def _top_up(self, now: float) -> None:
        progress = self._coordinator.progress(now, cores=self._cores, cores_busy=0.0)
        self._account.event_seconds = progress.event_seconds
        lookahead = self._settings.lookahead_s
        if self._work.stopped or progress.backlog_s >= lookahead:
            return
        cost = progress.event_seconds or UNKNOWN_EVENT_SECONDS
        count = math.ceil((_AHEAD * lookahead - progress.backlog_s) * self._cores / cost)
        lease = self._task.ledger.grant(holder=self._holder, limit=count, expires=now + _LEASE_S)
        if lease is not None:
            self._account.leases += 1
            leased = LeasedEvents(epoch=lease.epoch, events=lease.granted)
            self._deliver(self._coordinator.top_up((leased,)), now)

    def _commit(self, until: float) -> None:
        """What the journal has on the disk by then is done in the ledger; the rest is lost with the node."""
        kept: dict[int, IntervalSet] = {}
        for part in self._workers.finished:
            if part.at > until:
                self._account.lost_node += part.seconds
                continue
            self._account.useful += part.seconds
            kept[part.epoch] = kept.get(part.epoch, EMPTY).add(part.first, part.last)
        for epoch, events in kept.items():
            self._task.ledger.commit(epoch, holder=self._holder, done=events)
        for epoch, failure in self._failed:
            self._task.ledger.commit(epoch, holder=self._holder, failed=(failure,))
        self._workers.finished.clear()
        self._failed.clear()

    def _close(self, end: float) -> None:
        """Account for what was in flight, and for what a failed node had not synced."""
        account, node_failed = self._account, end >= self._lost_at
        in_flight = self._workers.close(end)
        if node_failed:
            account.lost_node += in_flight
        else:
            account.lost_drain += in_flight
        self._commit(end - self._settings.sync_s if node_failed else end)
        account.idle = self._workers.idle_s
        account.lost_timeout = self._workers.timeout_lost_s

    # ---- messages of the agent and the coordinator ----

    def _ask(self, now: float) -> None:
        want = self._work.want()
        if want is not None:
            self._deliver(self._coordinator.from_agent(0, want), now)

    def _report(self, now: float) -> None:
        report = self._work.report()
        if report is not None:
            self._deliver(self._coordinator.from_agent(0, report), now)

    def _deliver(self, sends: list[Send], now: float) -> None:
        for send in sends:
            message = send.message
            if isinstance(message, Chunk):
                self._work.add(message)
                self._workers.feed(now)
            elif isinstance(message, SetAside):
                self._failed.append((message.epoch, message.event))
