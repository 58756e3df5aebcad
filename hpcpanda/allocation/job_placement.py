"""Which jobs start on a node now, on which of its slots and GPUs, and which slots events must give up for them.

A state machine without I/O. A slot is a core of the node. It is with the events, or *asked* for (its event worker is on
its way out), or *idle* (free of events, no job yet), or a job runs on it. An event worker holds memory whether it works
or not, so a slot that is reserved has none: what a job lacks in memory is got by reserving further slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpcpanda.allocation.job_space import Shadow, Space, shadow

STALE_S: Final = 5.0
"""A job that has not begun after so long, and has no slots reserved, can as well be run by another node."""

LINGER_S: Final = 0.1
"""An idle slot waits so long for a further job before events get it back, if there are further jobs."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A job that starts now."""

    ticket: int
    slots: tuple[int, ...]
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done now."""

    start: tuple[Placed, ...] = ()
    reserve: frozenset[int] = frozenset()
    """Slots that events must leave; :meth:`JobPlacement.free` is to be called when they have."""
    unreserve: frozenset[int] = frozenset()
    """Slots that events may have again."""
    late: tuple[int, ...] = ()
    """Tickets of jobs whose walltime does not fit before the deadline any more."""
    stale: tuple[int, ...] = ()
    """Tickets of jobs that wait longer than :data:`STALE_S` without a place."""


@dataclass(slots=True)
class _Group:
    """Jobs of one task that came together."""

    task_id: int
    space: Space
    walltime_s: float
    since: float
    tickets: deque[int]


@dataclass(frozen=True, slots=True)
class _Running:
    slots: tuple[int, ...]
    gpus: tuple[int, ...]
    space: Space
    until: float


@dataclass(slots=True)
class _Draft:
    """What is left to place jobs on while a step is made up."""

    idle: set[int]
    asked: set[int]
    events: set[int]
    gpus: list[int]
    memory_mb: int
    kept: set[int] = field(default_factory=set)
    """Slots assigned to jobs that cannot start yet."""
    ends: list[tuple[float, Space]] = field(default_factory=list)
    """What jobs that have slots assigned give back, and about when."""
    head: Shadow | None = None
    """What must be left to the first job that has no place."""

    @property
    def slots(self) -> int:
        return len(self.idle) + len(self.asked) + len(self.events)

    @property
    def room(self) -> Space:
        return Space(self.slots, self.memory_mb, len(self.gpus))

    def choose(self, cores: int) -> tuple[int, ...]:
        """Slots side by side if there are such, for they share caches and memory; idle ones rather than others."""
        if cores == 1:
            return (min(self.idle or self.asked or self.events),)
        order = sorted(self.idle | self.asked | self.events)
        costs = [0 if s in self.idle else 1 if s in self.asked else 2 for s in order]
        windows = [
            (sum(costs[i : i + cores]), i)
            for i in range(len(order) - cores + 1)
            if order[i + cores - 1] - order[i] == cores - 1
        ]
        if windows:
            _, best = min(windows)
            return tuple(order[best : best + cores])
        by_cost = sorted(zip(costs, order, strict=True))
        return tuple(sorted(slot for _, slot in by_cost[:cores]))

    def take(self, slots: tuple[int, ...], space: Space) -> tuple[int, ...]:
        """Take slots, memory and GPUs away; gives the indices of the GPUs."""
        for group in (self.idle, self.asked, self.events):
            group.difference_update(slots)
        self.memory_mb -= space.memory_mb
        gpus, self.gpus = self.gpus[: space.gpus], self.gpus[space.gpus :]
        return tuple(gpus)


class JobPlacement:
    """The jobs of one node."""

    def __init__(self, *, slots: int, memory_mb: int, gpus: int, deadline: float) -> None:
        self._whole = Space(slots, memory_mb, gpus)
        self._deadline = deadline
        self._event_memory = 0
        self._groups: list[_Group] = []
        self._running: dict[int, _Running] = {}
        self._events: set[int] = set(range(slots))
        self._asked: set[int] = set()
        self._idle: dict[int, float] = {}
        self._gpus: set[int] = set(range(gpus))
        self._memory_mb = memory_mb

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return sum(len(g.tickets) for g in self._groups)

    @property
    def lingering(self) -> bool:
        """Whether slots are free of events and of jobs: they may be due to go back."""
        return bool(self._idle)

    def set_event_memory(self, mb: int | None) -> None:
        """What an event worker may use, MiB; None when there are no events."""
        self._event_memory = mb or 0

    def add(self, task_id: int, space: Space, walltime_s: float, tickets: Sequence[int], now: float) -> None:
        """Jobs to be run after those that are here already. Of what comes at the same time the biggest goes first."""
        last = self._groups[-1] if self._groups else None
        if last is not None and last.task_id == task_id:
            last.tickets.extend(tickets)
            last.since = now
            return
        group = _Group(task_id, space, walltime_s, now, deque(tickets))
        share = space.share_of(self._whole)
        at = len(self._groups)
        while (
            at
            and self._groups[at - 1].since == now
            and self._groups[at - 1].space.share_of(self._whole) < share
        ):
            at -= 1
        self._groups.insert(at, group)

    def drop(self, tickets: Collection[int]) -> tuple[int, ...]:
        """Forget those of these jobs that have not begun; gives them."""
        dropped: list[int] = []
        for group in self._groups:
            dropped += [t for t in group.tickets if t in tickets]
            group.tickets = deque(t for t in group.tickets if t not in tickets)
        self._sweep()
        return tuple(dropped)

    def free(self, slots: Collection[int], now: float) -> None:
        """Events have left these slots, which were asked for."""
        for slot in self._asked.intersection(slots):
            self._asked.remove(slot)
            self._idle[slot] = now

    def ended(self, ticket: int, now: float) -> None:
        """A job has ended, and all its processes with it."""
        run = self._running.pop(ticket)
        self._idle.update(dict.fromkeys(run.slots, now))
        self._gpus.update(run.gpus)
        self._memory_mb += run.space.memory_mb

    def step(self, now: float, *, more: bool = False) -> Step:
        """Place what can be placed.

        Args:
            now: on the clock of the deadline.
            more: whether further jobs may come soon, so that slots are worth keeping for a moment.
        """
        late = self._take_late(now)
        draft = _Draft(
            set(self._idle), set(self._asked), set(self._events), sorted(self._gpus), self._memory_mb
        )
        start: list[Placed] = []
        stale: list[int] = []
        for group in self._groups:
            assigned = self._place(group, draft, start, now)
            unplaced = len(group.tickets) - assigned
            if unplaced and draft.head is None and draft.slots:
                ends = draft.ends + [(r.until, r.space) for r in self._running.values()]
                draft.head = shadow(draft.room, ends, group.space)
            if unplaced and now - group.since >= STALE_S:
                stale += [group.tickets.pop() for _ in range(unplaced)]
        keep = self._keep(draft)
        self._sweep()
        return Step(
            start=tuple(start),
            reserve=self._reserve(keep),
            unreserve=self._unreserve(keep, now, linger=more),
            late=late,
            stale=tuple(stale),
        )

    def _place(self, group: _Group, draft: _Draft, start: list[Placed], now: float) -> int:
        """Start jobs of a group and assign slots to others of it; gives the number of the latter."""
        space, until = group.space, now + group.walltime_s
        assigned = 0
        while assigned < len(group.tickets) and draft.slots >= space.cores and draft.room.covers(space):
            slots = draft.choose(space.cores)
            at_once = draft.idle.issuperset(slots) and self._memory_now(space)
            if (head := draft.head) is not None and not (at_once and until <= head.at):
                if not head.spare.covers(space):
                    break
                draft.head = Shadow(head.at, head.spare - space)
            gpus = draft.take(slots, space)
            if at_once:
                placed = Placed(group.tickets.popleft(), slots, gpus)
                self._start(placed, space, until)
                start.append(placed)
            else:
                draft.kept.update(slots)
                draft.ends.append((until, space))
                assigned += 1
        return assigned

    def _memory_now(self, space: Space) -> bool:
        """Whether a job's memory is there beside that of the event workers which are."""
        workers = len(self._events) + len(self._asked)
        return space.memory_mb + workers * self._event_memory <= self._memory_mb

    def _start(self, placed: Placed, space: Space, until: float) -> None:
        self._running[placed.ticket] = _Running(placed.slots, placed.gpus, space, until)
        for slot in placed.slots:
            del self._idle[slot]
        self._gpus.difference_update(placed.gpus)
        self._memory_mb -= space.memory_mb

    def _keep(self, draft: _Draft) -> set[int]:
        """Slots to be kept from events: the assigned ones, and others as far as the jobs' memory is not there."""
        keep = set(draft.kept)
        if self._event_memory and (self._running or self._groups):
            workers = max(0, draft.memory_mb) // self._event_memory
            order = [*sorted(draft.idle), *sorted(draft.asked), *sorted(draft.events)]
            keep.update(order[: max(0, len(order) - workers)])
        return keep

    def _reserve(self, keep: set[int]) -> frozenset[int]:
        slots = frozenset(self._events & keep)
        self._events -= slots
        self._asked |= slots
        return slots

    def _unreserve(self, keep: set[int], now: float, *, linger: bool) -> frozenset[int]:
        slots = frozenset(
            slot
            for slot, since in self._idle.items()
            if slot not in keep and not (linger and now - since < LINGER_S)
        )
        for slot in slots:
            del self._idle[slot]
        self._events |= slots
        return slots

    def _take_late(self, now: float) -> tuple[int, ...]:
        late: list[int] = []
        for group in self._groups:
            if now + group.walltime_s > self._deadline:
                late += group.tickets
                group.tickets.clear()
        self._sweep()
        return tuple(late)

    def _sweep(self) -> None:
        self._groups = [g for g in self._groups if g.tickets]
