"""The edge of a simulation: the production planner, ledger and prediction, on the clock of a simulated batch system.

What the running edge does every half second is done here when something is due: at the first look at the batch system
(every ``scheduler.poll_seconds``) after the windows have changed, an allocation has begun or ended, or a pack has run low.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import Final

import numpy as np

from hpcpanda.domain.ledger import EventLedger
from hpcpanda.domain.site import Site
from hpcpanda.packing.windows import STEP_S, BackfillWindow, shorten
from hpcpanda.planning.actions import (
    Action,
    AddPack,
    CancelAllocation,
    FeedPack,
    GiveBack,
    NewAllocation,
    PackPlan,
    Want,
)
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import Situation, TaskView
from hpcpanda.simulate.policies.policy import next_poll
from hpcpanda.simulate.ports import AllocationEvent, BatchSystem
from hpcpanda.simulate.simulated_edge.dispatcher import SimulatedDispatcher
from hpcpanda.simulate.simulated_edge.learning import Learning
from hpcpanda.simulate.simulated_edge.state import EVENTS, JOBS, SimAllocation, SimPack
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.pack import PackJobs, PackModel
from hpcpanda.simulate.work.workload import RangeCosts, Workload

_ROUNDS: Final = 4
"""Plans at one look: what was asked for has come, and is planned with."""
_LOW: Final = 0.25
"""A pack whose events last for less than this share of the look-ahead is looked at."""
_JOB_ROUND_S: Final = 120.0
"""Freed slots of jobs wait for each other so long before a plan gives them jobs. The running edge takes half a second;
this keeps the number of plans small."""
_JOB_ROUND_BESIDE_S: Final = 1800.0
"""The same where events have the cores meanwhile."""


class SimulatedEdge:
    """The policy that is ours.

    Args:
        with_events: whether there are events besides jobs.
        with_jobs: whether there are jobs besides events.
    """

    def __init__(
        self,
        site: Site,
        workload: Workload,
        rng: np.random.Generator,
        *,
        with_events: bool = True,
        with_jobs: bool = True,
    ) -> None:
        self.name = "ours" if with_events else "ours without events"
        self.account = Account()
        self._site = site
        self._work = workload
        self._rng = rng
        self._costs = RangeCosts(workload.events)
        self._dispatcher = SimulatedDispatcher(
            workload, self.account, with_events=with_events, with_jobs=with_jobs
        )
        self._books = self._dispatcher.books
        self._job_round_s = _JOB_ROUND_BESIDE_S if with_events else _JOB_ROUND_S
        self._allocations: dict[int, SimAllocation] = {}
        self._timers: list[tuple[float, int]] = []
        self._plan_at = 0.0
        self._planned = -inf
        self._learnt = Learning(workload, self._costs, rng)

    @property
    def ledgers(self) -> dict[str, EventLedger]:
        """The dispatcher's, of events and of jobs."""
        return {("events" if task == EVENTS else "jobs"): books.ledger for task, books in self._books.items()}

    # ---- the policy ----

    def due(self, system: BatchSystem) -> float:
        """The end of an allocation, or the next look at which there is something to do."""
        poll_s = self._site.scheduler.poll_seconds
        look = next_poll(system.now, poll_s, min(self._plan_at, system.next_change()))
        return min(look, self._timers[0][0] if self._timers else inf)

    def heard(self, event: AllocationEvent) -> None:
        """An allocation has begun, or is over, or will soon be."""
        allocation = self._allocations.get(event.allocation)
        if allocation is None:
            return
        if event.what == "started":
            self._start(allocation, event.at)
            self._plan_at = min(self._plan_at, self._low(allocation, event.at))
        elif event.what == "preempted":
            self.account.preempted += 1
            self._wind_up(allocation, event.at, "preempted")
        elif event.what == "killed":
            at_wall = event.at >= allocation.started + allocation.walltime_s - 1e-6
            if not allocation.ending:
                self.account.killed_at_wall += at_wall
                self.account.failed += not at_wall
                for pack in allocation.packs:
                    if pack.model is not None:
                        pack.model.killed(event.at)
                        self._enter(pack, event.at)
            self._forget(allocation, event.at, allocation.how or "killed")

    def act(self, system: BatchSystem) -> None:
        """End what is to end, and plan if it is time for it."""
        while self._timers and self._timers[0][0] <= system.now:
            at, number = heapq.heappop(self._timers)
            allocation = self._allocations.get(number)
            if allocation is not None and at == allocation.wake_at:
                allocation.wake_at = inf
                self._check(allocation, system)
        if system.now % self._site.scheduler.poll_seconds == 0.0 and system.now > self._planned:
            self._plan(system)

    def close(self, system: BatchSystem) -> None:
        """The simulation is over: what runs is cut, its finished events count."""
        for allocation in list(self._allocations.values()):
            if allocation.running and not allocation.ending:
                for pack in allocation.packs:
                    if pack.model is not None:
                        pack.model.killed(system.now)
                        self._enter(pack, system.now)
            self._forget(allocation, system.now, "cut by the end of the simulation")
        for books in self._books.values():
            books.give_back()
            books.validate()

    # ---- allocations ----

    def _start(self, allocation: SimAllocation, at: float) -> None:
        allocation.started = at
        self.account.waits.append(at - allocation.submitted)
        self._learnt.saw_start(allocation, at)
        allocation.note_free(at, self._site, self.account)
        for pack in allocation.packs:
            self._begin(allocation, pack, at)
        self._set_timer(allocation)

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
            account=self.account,
        )
        for task in pack.tasks:
            self._give(pack, task, self._books[task].held(pack.holder), at)

    def _give(self, pack: SimPack, task: int, count: int, now: float) -> None:
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
            self._learnt.saw_events(done.events, now)
        if done.jobs:
            self._books[JOBS].finish(pack.holder, done.jobs, between)
            ran, pack.model.jobs.ran = pack.model.jobs.ran, np.empty(0)
            self._learnt.saw_jobs(ran, now)

    def _set_timer(self, allocation: SimAllocation) -> None:
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

    def _check(self, allocation: SimAllocation, system: BatchSystem) -> None:
        """Its time may have come. A pack without work lingers, and so does an allocation without packs."""
        now = system.now
        if allocation.ending:
            if now >= allocation.over_at:
                system.end(allocation.number)
                self._forget(allocation, now, allocation.how)
            return
        if now >= allocation.deadline(self._site):
            self._wind_up(allocation, now, "ended")
            return
        models = [p.model for p in allocation.packs if p.model]
        if max((m.idle_at() for m in models), default=now) + 2 * self._site.allocation.linger_s <= now:
            self._wind_up(allocation, now, "out of work")
            return
        self._set_timer(allocation)

    def _wind_up(self, allocation: SimAllocation, now: float, how: str) -> None:
        """It ends within the grace time: nothing new is begun."""
        if allocation.ending:
            return
        allocation.note_free(now, self._site, self.account)
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
        self.account.drain += sum((last - after) * p.nodes for p, after in ends) * cores
        self.account.drain += last * allocation.free_nodes * cores
        allocation.over_at = now + last
        for pack in allocation.packs:
            self._release(pack)
        allocation.packs.clear()
        self._wake(allocation, allocation.over_at)

    def _forget(self, allocation: SimAllocation, at: float, how: str) -> None:
        """It is over."""
        if allocation.running:
            if (
                allocation.ending
            ):  # by now accounted for up to its end, which comes early where the simulation ends
                self.account.drain -= (allocation.over_at - at) * allocation.nodes * self._site.nodes.cores
            else:
                allocation.note_free(at, self._site, self.account)
            self.account.spans.append((allocation.started, at, allocation.nodes, how))
            self._learnt.saw_end(allocation, at, lost=how in ("preempted", "killed"))
        for pack in allocation.packs:
            self._release(pack)
        del self._allocations[allocation.number]
        self._plan_at = at

    def _release(self, pack: SimPack) -> None:
        for books in self._books.values():
            books.release(pack.holder)

    # ---- planning ----

    def _plan(self, system: BatchSystem) -> None:
        """Plan, act, fetch what is wanted; again, as long as that changes something."""
        now = system.now
        told = system.windows()
        windows = None if told is None else shorten(told, step=STEP_S)
        for allocation in self._allocations.values():
            for pack in allocation.packs:
                if pack.model is not None:
                    pack.model.settle(now)
        settled = False
        for _ in range(_ROUNDS):
            plan = make_plan(self._situation(now, windows))
            for action in plan.actions:
                self._do(action, system)
            useless = bool(plan.actions) and all(isinstance(action, GiveBack) for action in plan.actions)
            settled = useless or not self._answer(plan.wants, now)
            if settled:
                break
        self._planned = now
        low = min((self._low(a, now) for a in self._allocations.values()), default=inf)
        self._plan_at = low if settled else now

    def _situation(self, now: float, windows: tuple[BackfillWindow, ...] | None) -> Situation:
        return Situation(
            site=self._site,
            now=now,
            tasks=tuple(self._task(task) for task in self._books),
            allocations=tuple(a.view(self._site, self._books, now) for a in self._allocations.values()),
            windows=windows,
            windows_seen=now,
            forecast=self._learnt.forecast(now),
        )

    def _task(self, task: int) -> TaskView:
        books = self._books[task]
        if task == EVENTS:
            return TaskView(task_id=task, ready=books.ready, event_seconds=self._learnt.event_seconds)
        seconds = self._learnt.job_seconds
        return TaskView(task_id=task, job=self._work.jobs.request, ready=books.ready, job_seconds=seconds)

    def _do(self, action: Action, system: BatchSystem) -> None:
        match action:
            case FeedPack():
                self._feed(action, system.now)
            case AddPack():
                allocation = self._allocations[int(action.allocation_id)]
                allocation.note_free(system.now, self._site, self.account)
                if (pack := self._pack(allocation, action.pack)) is not None:
                    self._begin(allocation, pack, system.now)
                    allocation.note_free(system.now, self._site, self.account)
                    self._set_timer(allocation)
            case NewAllocation():
                self._submit(action, system)
            case GiveBack():
                self._dispatcher.give_back(action.task_id)
            case CancelAllocation():
                allocation = self._allocations[int(action.allocation_id)]
                system.end(allocation.number)
                self._forget(allocation, system.now, "cancelled")
            case _:
                raise AssertionError(f"{action} is for work that no simulation has")

    def _feed(self, action: FeedPack, now: float) -> None:
        allocation = self._allocations[int(action.allocation_id)]
        pack = next(p for p in allocation.packs if p.holder == action.pack_id)
        task = action.share.task_id
        given = self._books[task].hand_out(pack.holder, action.share.events)
        pack.tasks.add(task)
        if pack.model is not None:
            self._give(pack, task, given, now)
            self._set_timer(allocation)

    def _submit(self, action: NewAllocation, system: BatchSystem) -> None:
        number = system.submit(action.nodes, action.walltime_s)
        self.account.requests += 1
        allocation = SimAllocation(
            number=number,
            nodes=action.nodes,
            walltime_s=action.walltime_s,
            submitted=system.now,
            in_window=action.in_window,
        )
        for plan in action.packs:
            self._pack(allocation, plan)
        self._allocations[number] = allocation

    def _pack(self, allocation: SimAllocation, plan: PackPlan) -> SimPack | None:
        """A pack with the work it begins with; None when there is none for it."""
        holder = f"{allocation.number}-{len(allocation.packs)}-{self.account.requests}"
        tasks = {s.task_id for s in plan.work if self._books[s.task_id].hand_out(holder, s.events)}
        if not tasks:
            return None
        pack = SimPack(holder=holder, nodes=plan.nodes, tasks=tasks)
        allocation.packs.append(pack)
        return pack

    def _answer(self, wants: tuple[Want, ...], now: float) -> int:
        """Have answered what is wanted, and get what packs that run would take first of it.

        A plan hands work to packs that run, up to two look-aheads, before new nodes get any; the running edge asks for
        the rest again and again, twice a second. Here it comes at once.
        """
        full_s = 2 * self._site.allocation.lookahead_s
        missing = 0.0
        for allocation in self._allocations.values():
            for pack in allocation.packs:
                if pack.model is not None and now >= pack.model.ready_at:
                    missing += max(0.0, full_s - pack.model.backlog_s(now)) * pack.model.cores
        return self._dispatcher.answer(wants, now, self._learnt.event_seconds, besides_s=missing)

    def _low(self, allocation: SimAllocation, now: float) -> float:
        """When a pack of it will have run low, as far as more would be of use to it."""
        if allocation.ending or not allocation.running:
            return inf
        low, deadline = inf, allocation.deadline(self._site)
        for pack in allocation.packs:
            model = pack.model
            assert model is not None
            if EVENTS in self._books:
                dry = max(now, model.dry_at())
                if dry < deadline:
                    early = _LOW * self._site.allocation.lookahead_s
                    low = min(low, max(dry - early, (now + dry) / 2))  # near the end not at every look
            if JOBS in self._books and model.jobs.next_slot < inf:
                low = min(low, max(model.jobs.next_slot, now) + self._job_round_s)
        return low
