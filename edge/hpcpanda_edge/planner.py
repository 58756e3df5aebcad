"""What to do next, from where things are: a pure function, the same for the running edge, `status` and tests.

Each round looks at all tasks and allocations anew. Work goes first to packs that run, then to free nodes of running
allocations, then into new allocations, always inside the site's limits. What cannot be placed is given back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from hpcpanda.domain.site import Site
from hpcpanda.domain.states import TaskState

UNKNOWN_EVENT_SECONDS: Final = 1.0
"""Taken for the cost of an event of which nothing is known."""
REFILL_BELOW: Final = 0.8
"""More work is fetched for a pack whose backlog is below this share of the look-ahead."""
SHORTEST_USE_S: Final = 3.0
"""An allocation with less time than this left is given nothing more."""


class Reason(StrEnum):
    """Why a task is where it is, at this edge."""

    RUNNING = "running"
    STARTING = "starting"
    """An allocation with a pack of it is planned, queued or starting."""
    NO_WORK = "no-work"
    """Everything leased of it is finished; more is asked for as capacity allows."""
    BACKING_OFF = "backing-off"
    """Its packs ended without a finished event; the next try is put off."""
    ALLOCATION_LIMIT = "allocation-limit"
    NODE_LIMIT = "node-limit"
    SUBMISSION_FAILING = "submission-failing"
    DRAINING = "draining"
    WAITING_FOR_COMMITS = "waiting-for-commits"
    """Its merge waits until the dispatcher has answered all commits."""
    MERGING = "merging"
    MERGED = "merged"
    FAULT = "fault"
    """It cannot run here; the dispatcher has been told, or will be."""
    FINAL = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task as the planner sees it."""

    task_id: int
    state: TaskState = TaskState.RUNNING
    ready: int = 0
    """Events here that no pack works on."""
    event_seconds: float | None = None
    not_before: float = 0.0
    priority: int = 0
    mergeable: bool = False
    """There is something to merge and every commit is answered."""
    merged: bool = False
    fault: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PackView:
    """A pack that has not ended."""

    pack_id: str
    task_id: int
    kind: Literal["events", "merge"]
    nodes: int
    cores: int = 0
    """As reported; 0 while it starts."""
    backlog_s: float | None = None
    """As reported; None while unknown, or while there are unread messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationView:
    """An allocation that has not ended."""

    allocation_id: str
    nodes: int
    packs: tuple[PackView, ...]
    accepts: bool
    """It can be given more: it is not draining and not ending."""
    running: bool = False
    seconds_left: float
    """Until it stops working; the whole of it while it is queued."""

    @property
    def free_nodes(self) -> int:
        """Nodes without a pack."""
        return max(0, self.nodes - sum(p.nodes for p in self.packs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything a plan depends on."""

    site: Site
    now: float
    tasks: tuple[TaskView, ...] = ()
    allocations: tuple[AllocationView, ...] = ()
    submit_not_before: float = 0.0
    """Nothing is submitted before: the batch system refused lately."""
    draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPack:
    """Hand all ready events of a task to a pack that runs."""

    task_id: int
    allocation_id: str
    pack_id: str
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPack:
    """Start a pack on free nodes of an allocation."""

    task_id: int
    kind: Literal["events", "merge"]
    allocation_id: str
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAllocation:
    """Start an allocation with one pack."""

    task_id: int
    kind: Literal["events", "merge"]
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    """Return the ready events of a task to the dispatcher."""

    task_id: int


Action = FeedPack | AddPack | NewAllocation | GiveBack


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Work to ask the dispatcher for."""

    cores: int
    seconds: float
    task_id: int | None = None
    """Of this task only, for a pack that runs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, what to ask for, and why each task is where it is."""

    actions: tuple[Action, ...]
    wants: tuple[Want, ...]
    reasons: dict[int, Reason] = field(default_factory=dict)


def make_plan(situation: Situation) -> Plan:
    """Work out what to do next."""
    round_ = _Round(situation)
    actions = tuple(round_.actions())
    return Plan(actions=actions, wants=tuple(round_.wants()), reasons=round_.reasons)


class _Round:
    """One planning round: what is left of nodes and slots while actions are chosen."""

    def __init__(self, situation: Situation) -> None:
        self._s = situation
        self._site = situation.site
        self._free = {a.allocation_id: a.free_nodes for a in situation.allocations if a.accepts}
        self._slots = max(0, self._site.limits.allocations - len(situation.allocations))
        self._nodes = max(0, self._site.node_limit - sum(a.nodes for a in situation.allocations))
        self.reasons: dict[int, Reason] = {}

    def actions(self) -> Iterator[Action]:
        """Choose actions, task by task."""
        for task in sorted(self._s.tasks, key=lambda t: (-t.priority, t.task_id)):
            yield from self._for_task(task)

    def wants(self) -> Iterator[Want]:
        """Choose what to ask for, once the actions are chosen."""
        if self._s.draining:
            return
        lookahead = self._site.allocation.lookahead_s
        free = 0
        seconds = 0.0
        for allocation in self._s.allocations:
            if allocation.accepts and allocation.seconds_left > SHORTEST_USE_S:
                horizon = min(lookahead, allocation.seconds_left)
                yield from self._refills(allocation, horizon)
                if allocation.running and self._free[allocation.allocation_id]:
                    free += self._free[allocation.allocation_id]
                    seconds = max(seconds, horizon)
        if self._slots and self._nodes and self._s.now >= self._s.submit_not_before:
            free += self._nodes
            seconds = min(lookahead, self._useful_s)
        if free:
            yield Want(cores=free * self._site.nodes.cores, seconds=max(seconds, 0.001))

    @property
    def _useful_s(self) -> float:
        return self._site.allocation.walltime_s - self._site.allocation.margin_s

    def _refills(self, allocation: AllocationView, horizon: float) -> Iterator[Want]:
        states = {t.task_id: t for t in self._s.tasks}
        for pack in allocation.packs:
            task = states.get(pack.task_id)
            if pack.kind != "events" or pack.backlog_s is None or not pack.cores or task is None:
                continue
            if task.state is TaskState.RUNNING and not task.fault and pack.backlog_s < REFILL_BELOW * horizon:
                yield Want(cores=pack.cores, seconds=horizon - pack.backlog_s, task_id=task.task_id)

    def _for_task(self, task: TaskView) -> Iterator[Action]:
        if task.state.final or task.fault:
            self.reasons[task.task_id] = Reason.FINAL if task.state.final else Reason.FAULT
            if task.ready:
                yield GiveBack(task_id=task.task_id)
        elif task.state is TaskState.MERGING:
            yield from self._merge(task)
        else:
            yield from self._events(task)

    def _merge(self, task: TaskView) -> Iterator[Action]:
        if task.ready:
            yield GiveBack(task_id=task.task_id)
        if task.merged:
            self.reasons[task.task_id] = Reason.MERGED
        elif any(p.kind == "merge" and p.task_id == task.task_id for _, p in self._packs()):
            self.reasons[task.task_id] = Reason.MERGING
        elif not task.mergeable:
            self.reasons[task.task_id] = Reason.WAITING_FOR_COMMITS
        elif hindrance := self._hindrance(task):
            self.reasons[task.task_id] = hindrance
        else:
            yield from self._place(task, "merge", 1)

    def _events(self, task: TaskView) -> Iterator[Action]:
        running = [(a, p) for a, p in self._packs() if p.kind == "events" and p.task_id == task.task_id]
        self.reasons[task.task_id] = _reason_of(running)
        if not task.ready:
            return
        fed = [(a, p) for a, p in running if a.accepts and a.seconds_left > SHORTEST_USE_S]
        hindrance = self._hindrance(task)
        if fed and not self._s.draining:
            yield from _share_out(task, [(a.allocation_id, p) for a, p in fed])
        elif hindrance:
            self.reasons[task.task_id] = hindrance
            yield GiveBack(task_id=task.task_id)
        else:
            placed = list(self._place(task, "events", self._nodes_for(task)))
            yield from placed or (GiveBack(task_id=task.task_id),)

    def _hindrance(self, task: TaskView) -> Reason | None:
        if self._s.draining:
            return Reason.DRAINING
        return Reason.BACKING_OFF if self._s.now < task.not_before else None

    def _place(self, task: TaskView, kind: Literal["events", "merge"], nodes: int) -> Iterator[Action]:
        """Find nodes for a pack: in a running allocation, or in a new one."""
        for allocation in self._s.allocations:
            free = self._free.get(allocation.allocation_id, 0)
            if free and allocation.running and allocation.seconds_left > SHORTEST_USE_S:
                self._free[allocation.allocation_id] = free - min(free, nodes)
                self.reasons[task.task_id] = Reason.STARTING
                yield AddPack(
                    task_id=task.task_id,
                    kind=kind,
                    allocation_id=allocation.allocation_id,
                    nodes=min(free, nodes),
                )
                return
        if self._s.now < self._s.submit_not_before:
            self.reasons[task.task_id] = Reason.SUBMISSION_FAILING
        elif not self._slots:
            self.reasons[task.task_id] = Reason.ALLOCATION_LIMIT
        elif not self._nodes:
            self.reasons[task.task_id] = Reason.NODE_LIMIT
        else:
            nodes = min(nodes, self._nodes)
            self._slots -= 1
            self._nodes -= nodes
            self.reasons[task.task_id] = Reason.STARTING
            yield NewAllocation(task_id=task.task_id, kind=kind, nodes=nodes)

    def _nodes_for(self, task: TaskView) -> int:
        """Nodes that the ready events keep busy for the look-ahead."""
        work = task.ready * (task.event_seconds or UNKNOWN_EVENT_SECONDS)
        per_node = self._site.nodes.cores * min(self._site.allocation.lookahead_s, self._useful_s)
        return max(1, min(math.ceil(work / per_node - 1e-9), task.ready))

    def _packs(self) -> Iterator[tuple[AllocationView, PackView]]:
        for allocation in self._s.allocations:
            for pack in allocation.packs:
                yield allocation, pack


def _reason_of(running: list[tuple[AllocationView, PackView]]) -> Reason:
    if not running:
        return Reason.NO_WORK
    return Reason.RUNNING if any(p.cores for _, p in running) else Reason.STARTING


def _share_out(task: TaskView, packs: list[tuple[str, PackView]]) -> Iterator[Action]:
    """Divide the ready events among packs by their size, those with the least work in hand first."""
    packs = sorted(packs, key=lambda ap: (ap[1].backlog_s or 0.0, ap[0], ap[1].pack_id))
    left, nodes = task.ready, sum(p.nodes for _, p in packs)
    for allocation_id, pack in packs:
        events = min(left, math.ceil(task.ready * pack.nodes / nodes))
        if events:
            yield FeedPack(
                task_id=task.task_id, allocation_id=allocation_id, pack_id=pack.pack_id, events=events
            )
        left -= events
