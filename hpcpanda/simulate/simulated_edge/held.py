"""What a simulated edge holds: allocations from the request to the end, what their packs do, and when each is looked at."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from math import inf

import numpy as np

from hpcpanda.domain.site import Site
from hpcpanda.simulate.ports import BatchSystem
from hpcpanda.simulate.simulated_edge.books import Books
from hpcpanda.simulate.simulated_edge.learning import Learning
from hpcpanda.simulate.simulated_edge.state import EVENTS, JOBS, SimAllocation, SimPack
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.pack import PackJobs, PackModel
from hpcpanda.simulate.work.workload import RangeCosts, Workload


class HeldAllocations:
    """All that have not ended."""

    def __init__(
        self,
        site: Site,
        workload: Workload,
        books: Mapping[int, Books],
        account: Account,
        rng: np.random.Generator,
    ) -> None:
        self._site = site
        self._work = workload
        self._books = books
        self._account = account
        self._rng = rng
        self._costs = RangeCosts(workload.events)
        self._timers: list[tuple[float, int]] = []
        self.alive: dict[int, SimAllocation] = {}
        """By number."""
        self.learnt = Learning(workload, self._costs, rng)
        """From all that they did."""

    @property
    def due(self) -> float:
        """When one of them may have to be ended; infinity for never."""
        return self._timers[0][0] if self._timers else inf

    # ---- their life ----

    def start(self, allocation: SimAllocation, at: float) -> None:
        """It has begun, and with it all its packs."""
        allocation.started = at
        self._account.waits.append(at - allocation.submitted)
        self.learnt.saw_start(allocation, at)
        allocation.note_free(at, self._site, self._account)
        for pack in allocation.packs:
            self._begin(allocation, pack, at)
        self.set_timer(allocation)

    def begin(self, allocation: SimAllocation, pack: SimPack, at: float) -> None:
        """A pack begins on nodes of it that were free."""
        self._begin(allocation, pack, at)
        allocation.note_free(at, self._site, self._account)
        self.set_timer(allocation)

    def _begin(self, allocation: SimAllocation, pack: SimPack, at: float) -> None:
        """A pack starts, with all it has."""
        work, site = self._work, self._site
        slots = pack.nodes * (site.nodes.cores // work.jobs.cores) if JOBS in self._books else 0
        deadline = allocation.deadline(site)
        pack.entered = at
        pack.model = PackModel(
            self._costs,
            work.events.event_seconds,
            PackJobs(work.jobs, slots=slots, begins=at + work.startup_s, deadline=deadline),
            cores=pack.nodes * site.nodes.cores,
            begins=at,
            startup_s=work.startup_s,
            sync_s=site.allocation.sync_s,
            account=self._account,
        )
        for task in pack.tasks:
            self.give(pack, task, self._books[task].held(pack.holder), at)

    def give(self, pack: SimPack, task: int, count: int, now: float) -> None:
        """A pack that has begun is handed so many events, or jobs."""
        model = pack.model
        assert model is not None
        model.settle(now)
        if now - pack.entered >= self._site.allocation.lookahead_s:
            self._enter(pack, now)
        if task == EVENTS:
            model.give_events(count)
        else:
            model.jobs.give(count, now, self._rng)

    def _enter(self, pack: SimPack, now: float) -> None:
        """What a pack has finished since the last time goes into the ledgers; its events ended evenly in between."""
        assert pack.model is not None
        done = pack.model.take_done()
        between = (pack.entered + now) / 2
        pack.entered = now
        if done.events:
            self._books[EVENTS].finish(pack.holder, done.events, between)
            self.learnt.saw_events(done.events, now)
        if done.jobs:
            self._books[JOBS].finish(pack.holder, done.jobs, between)
            ran, pack.model.jobs.ran = pack.model.jobs.ran, np.empty(0)
            self.learnt.saw_jobs(ran, now)

    # ---- their end ----

    def set_timer(self, allocation: SimAllocation) -> None:
        """When it may have to be ended: at its deadline, or when it has had nothing to do for long enough."""
        if allocation.ending:
            at = allocation.over_at
        else:
            idle = max((p.model.idle_at() for p in allocation.packs if p.model), default=allocation.started)
            at = min(allocation.deadline(self._site), idle + 2 * self._site.allocation.linger_s)
        self._wake(allocation, at)

    def _wake(self, allocation: SimAllocation, at: float) -> None:
        """Look at it then, and at no other time."""
        if at != allocation.wake_at:
            allocation.wake_at = at
            heapq.heappush(self._timers, (at, allocation.number))

    def look(self, system: BatchSystem) -> bool:
        """End those whose time has come; whether one is gone."""
        before = len(self.alive)
        while self._timers and self._timers[0][0] <= system.now:
            at, number = heapq.heappop(self._timers)
            allocation = self.alive.get(number)
            if allocation is not None and at == allocation.wake_at:
                allocation.wake_at = inf
                self._check(allocation, system)
        return len(self.alive) < before

    def _check(self, allocation: SimAllocation, system: BatchSystem) -> None:
        """Its time may have come. A pack without work lingers, and so does an allocation without packs."""
        now = system.now
        if allocation.ending:
            if now >= allocation.over_at:
                system.end(allocation.number)
                self.forget(allocation, now, allocation.how)
            return
        if now >= allocation.deadline(self._site):
            self.wind_up(allocation, now, "ended")
            return
        models = [p.model for p in allocation.packs if p.model]
        if max((m.idle_at() for m in models), default=now) + 2 * self._site.allocation.linger_s <= now:
            self.wind_up(allocation, now, "out of work")
            return
        self.set_timer(allocation)

    def wind_up(self, allocation: SimAllocation, now: float, how: str) -> None:
        """It ends within the grace time: nothing new is begun."""
        if allocation.ending:
            return
        allocation.note_free(now, self._site, self._account)
        allocation.ending, allocation.how = True, how
        grace = self._site.allocation.grace_s
        ends: list[tuple[SimPack, float]] = []
        for pack in allocation.packs:
            model = pack.model
            assert model is not None
            after = model.preempted(now, grace) if how == "preempted" else model.drained(now, grace)
            self._enter(pack, now + after)
            ends.append((pack, after))
        last = max((after for _, after in ends), default=0.0)
        cores = self._site.nodes.cores
        self._account.drain += sum((last - after) * p.nodes for p, after in ends) * cores
        self._account.drain += last * allocation.free_nodes * cores
        allocation.over_at = now + last
        for pack in allocation.packs:
            self._release(pack)
        allocation.packs.clear()
        self._wake(allocation, allocation.over_at)

    def cut(self, allocation: SimAllocation, at: float) -> None:
        """It is gone without a warning: what its packs have in flight is lost, what they have finished counts."""
        for pack in allocation.packs:
            if pack.model is not None:
                pack.model.killed(at)
                self._enter(pack, at)

    def forget(self, allocation: SimAllocation, at: float, how: str) -> None:
        """It is over."""
        if allocation.running:
            if allocation.ending:
                # by now accounted for up to its end, which comes early where the simulation ends
                early = (allocation.over_at - at) * allocation.nodes * self._site.nodes.cores
                self._account.drain -= early
            else:
                allocation.note_free(at, self._site, self._account)
            self._account.spans.append((allocation.started, at, allocation.nodes, how))
            self.learnt.saw_end(allocation, at, lost=how in ("preempted", "killed"))
        for pack in allocation.packs:
            self._release(pack)
        del self.alive[allocation.number]

    def _release(self, pack: SimPack) -> None:
        for books in self._books.values():
            books.release(pack.holder)
