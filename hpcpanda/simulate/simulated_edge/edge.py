"""The edge of a simulation: the production planner, ledger and prediction, on the clock of a simulated batch system.

What the running edge does every half second is done here when something is due: at the first look at the batch system
(every ``scheduler.poll_seconds``) after the windows have changed, an allocation has begun or ended, or a pack has run low.
"""

from __future__ import annotations

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
from hpcpanda.planning.situation import AllocationView, Situation, TaskView
from hpcpanda.simulate.policies.policy import next_poll
from hpcpanda.simulate.ports import AllocationEvent, BatchSystem
from hpcpanda.simulate.simulated_edge.dispatcher import SimulatedDispatcher
from hpcpanda.simulate.simulated_edge.held import HeldAllocations
from hpcpanda.simulate.simulated_edge.state import EVENTS, JOBS, SimAllocation, SimPack
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.workload import Workload

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
        self._dispatcher = SimulatedDispatcher(
            workload, self.account, with_events=with_events, with_jobs=with_jobs
        )
        self._books = self._dispatcher.books
        self._held = HeldAllocations(site, workload, self._books, self.account, rng)
        self._job_round_s = _JOB_ROUND_BESIDE_S if with_events else _JOB_ROUND_S
        self._plan_at = 0.0
        self._planned = -inf
        self._seen: dict[int, AllocationView] = {}

    @property
    def ledgers(self) -> dict[str, EventLedger]:
        """The dispatcher's, of events and of jobs."""
        return {("events" if task == EVENTS else "jobs"): books.ledger for task, books in self._books.items()}

    # ---- the policy ----

    def due(self, system: BatchSystem) -> float:
        """The end of an allocation, or the next look at which there is something to do."""
        poll_s = self._site.scheduler.poll_seconds
        return min(next_poll(system.now, poll_s, min(self._plan_at, system.next_change())), self._held.due)

    def heard(self, event: AllocationEvent) -> None:
        """An allocation has begun, or is over, or will soon be."""
        allocation = self._held.alive.get(event.allocation)
        if allocation is None:
            return
        if event.what == "started":
            self._held.start(allocation, event.at)
            self._plan_at = min(self._plan_at, self._low(allocation, event.at))
        elif event.what == "preempted":
            self.account.preempted += 1
            self._held.wind_up(allocation, event.at, "preempted")
        elif event.what == "killed":
            if not allocation.ending:
                at_wall = event.at >= allocation.started + allocation.walltime_s - 1e-6
                self.account.killed_at_wall += at_wall
                self.account.failed += not at_wall
                self._held.cut(allocation, event.at)
            self._held.forget(allocation, event.at, allocation.how or "killed")
            self._plan_at = event.at

    def act(self, system: BatchSystem) -> None:
        """End what is to end, and plan if it is time for it."""
        if self._held.look(system):
            self._plan_at = system.now
        if system.now % self._site.scheduler.poll_seconds == 0.0 and system.now > self._planned:
            self._plan(system)

    def close(self, system: BatchSystem) -> None:
        """The simulation is over: what runs is cut, its finished events count."""
        for allocation in list(self._held.alive.values()):
            if allocation.running and not allocation.ending:
                self._held.cut(allocation, system.now)
            self._held.forget(allocation, system.now, "cut by the end of the simulation")
        for books in self._books.values():
            books.give_back()
            books.validate()

    # ---- planning ----

    def _plan(self, system: BatchSystem) -> None:
        """Plan, act, fetch what is wanted; again, as long as that changes something."""
        now = system.now
        told = system.windows()
        windows = None if told is None else shorten(told, step=STEP_S)
        for allocation in self._held.alive.values():
            for pack in allocation.packs:
                if pack.model is not None:
                    pack.model.settle(now)
        self._seen.clear()
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
        low = min((self._low(a, now) for a in self._held.alive.values()), default=inf)
        self._plan_at = low if settled else now

    def _situation(self, now: float, windows: tuple[BackfillWindow, ...] | None) -> Situation:
        return Situation(
            site=self._site,
            now=now,
            tasks=tuple(self._task(task) for task in self._books),
            allocations=tuple(self._view(a, now) for a in self._held.alive.values()),
            windows=windows,
            windows_seen=now,
            forecast=self._held.learnt.forecast(now),
        )

    def _view(self, allocation: SimAllocation, now: float) -> AllocationView:
        """As it is seen at this look; nothing but an action changes that."""
        seen = self._seen.get(allocation.number)
        if seen is None:
            seen = self._seen[allocation.number] = allocation.view(self._site, self._books, now)
        return seen

    def _task(self, task: int) -> TaskView:
        books = self._books[task]
        if task == EVENTS:
            return TaskView(task_id=task, ready=books.ready, event_seconds=self._held.learnt.event_seconds)
        seconds = self._held.learnt.job_seconds
        return TaskView(task_id=task, job=self._work.jobs.request, ready=books.ready, job_seconds=seconds)

    def _do(self, action: Action, system: BatchSystem) -> None:
        if isinstance(action, FeedPack | AddPack):
            self._seen.pop(int(action.allocation_id), None)
        match action:
            case FeedPack():
                self._feed(action, system.now)
            case AddPack():
                allocation = self._held.alive[int(action.allocation_id)]
                allocation.note_free(system.now, self._site, self.account)
                if (pack := self._pack(allocation, action.pack)) is not None:
                    self._held.begin(allocation, pack, system.now)
            case NewAllocation():
                self._submit(action, system)
            case GiveBack():
                self._dispatcher.give_back(action.task_id)
            case CancelAllocation():
                allocation = self._held.alive[int(action.allocation_id)]
                system.end(allocation.number)
                self._held.forget(allocation, system.now, "cancelled")
            case _:
                raise AssertionError(f"{action} is for work that no simulation has")

    def _feed(self, action: FeedPack, now: float) -> None:
        allocation = self._held.alive[int(action.allocation_id)]
        pack = next(p for p in allocation.packs if p.holder == action.pack_id)
        task = action.share.task_id
        given = self._books[task].hand_out(pack.holder, action.share.events)
        pack.tasks.add(task)
        if pack.model is not None:
            self._held.give(pack, task, given, now)
            self._held.set_timer(allocation)

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
        self._held.alive[number] = allocation

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

        def missing_s() -> float:
            missing = 0.0
            for allocation in self._held.alive.values():
                for pack in allocation.packs:
                    if pack.model is not None and now >= pack.model.ready_at:
                        missing += max(0.0, full_s - pack.model.backlog_s(now)) * pack.model.cores
            return missing

        return self._dispatcher.answer(wants, now, self._held.learnt.event_seconds, besides_s=missing_s)

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
