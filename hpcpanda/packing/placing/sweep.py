"""Filling nodes through time: whenever something ends on a node, the jobs that suit the room best start. Pure.

Time only goes forward on a node, so what is free now stays free unless it was booked before: that makes the search for
each job short. Nodes are filled one after the other, or some side by side where there are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import numpy as np

from hpcpanda.packing.placing.classes import JobClasses
from hpcpanda.packing.tables import Floats

Vector = tuple[float, ...]
"""An amount in each dimension."""
Booking = tuple[float, float, Vector]
"""Start, end and demand of what is on a node."""


@dataclass(frozen=True, slots=True)
class Room:
    """A node for a time, with what is booked on it before."""

    node: int
    begin: float
    end: float
    capacity: Vector
    bookings: list[Booking] = field(default_factory=list)


@dataclass(slots=True)
class Filled:
    """What a sweep placed, job by job."""

    job: list[int] = field(default_factory=list)
    node: list[int] = field(default_factory=list)
    start: list[float] = field(default_factory=list)


def rooms_of(
    node: int, begin: float, end: float, capacity: Vector, bookings: list[Booking]
) -> Iterator[Room]:
    """A node as rooms: the gaps between bookings where each takes all of it, else one room with bookings in it."""
    if any(demand != capacity for _, _, demand in bookings):
        yield Room(node, begin, end, capacity, bookings)
        return
    for start, stop, _ in sorted(bookings):
        if start > begin:
            yield Room(node, begin, start, capacity)
        begin = max(begin, stop)
    if end > begin:
        yield Room(node, begin, end, capacity)


class _Front:
    """The present on one node while it is filled."""

    __slots__ = ("_begin", "_changes", "_falls", "_free", "_now", "_steps", "end", "free", "length", "node")

    def __init__(self, room: Room) -> None:
        self.node = room.node
        self.end = room.end
        self._now = self._begin = room.begin
        self._free = list(room.capacity)
        self._changes: list[tuple[float, Vector]] = []
        for start, end, demand in room.bookings:
            self._changes.append((start, tuple(-x for x in demand)))
            self._changes.append((end, demand))
        heapify(self._changes)
        self._falls = len(room.bookings)
        """Bookings whose start is still to come."""
        self._steps: list[tuple[list[float], float]] = []
        self.free: list[float] = []
        """Free in each dimension for all of ``length``."""
        self.length = 0.0

    def begin(self, classes: JobClasses) -> bool:
        self._apply()
        return self._look(classes) or self.later(classes)

    def later(self, classes: JobClasses) -> bool:
        """Go on to the next, wider and shorter, room of the present, or to the next time at which there is one.

        Says whether there is one.
        """
        if self._steps:
            self.free, self.length = self._steps.pop()
            return True
        while self._changes:
            self._now = self._changes[0][0]
            if self.end - self._now < classes.shortest:
                return False
            self._apply()
            if self._look(classes):
                return True
        return False

    def fill(self, rank: Floats, label: int, classes: JobClasses, filled: Filled) -> bool:
        """Start jobs of a class now; says whether there is room at some time for more."""
        fresh = self._now == self._begin
        if fresh and not self._changes:
            label = classes.first(rank, label, self.length)
        label, limit = classes.settle(rank, label, self.length, fresh=fresh)
        shares = zip(self.free, classes.upper[label], strict=True)
        copies = min((int(free // most) for free, most in shares if most > 0), default=1)
        for _ in range(max(1, int(copies * classes.batch))):
            index = classes.take(label, limit)
            if index < 0:
                break
            demand = classes.demand[index]
            free = self._free
            for i, x in enumerate(demand):
                free[i] -= x
            heappush(self._changes, (self._now + classes.times[index], demand))
            filled.job.append(classes.jobs[index])
            filled.node.append(self.node)
            filled.start.append(self._now)
        return self._look(classes) or self.later(classes)

    def _apply(self) -> None:
        """Make all changes up to the present."""
        changes, free = self._changes, self._free
        while changes and changes[0][0] <= self._now:
            change = heappop(changes)[1]
            for i, x in enumerate(change):
                free[i] += x
            if self._falls and min(change) < 0:
                self._falls -= 1

    def _look(self, classes: JobClasses) -> bool:
        """What is free at present, and for how long; says whether any job might fit."""
        self._steps = []
        for f, least in zip(self._free, classes.least, strict=True):
            if f < least:
                return False
        length = self.end - self._now
        if length < classes.shortest:
            return False
        if self._falls:
            self._steps = self._stairs(classes)
            return self.later(classes) if self._steps else False
        self.free, self.length = self._free, length
        return True

    def _stairs(self, classes: JobClasses) -> list[tuple[list[float], float]]:
        """Rooms that begin at present, the widest and shortest first: bookings to come end them."""
        now, running = self._now, list(self._free)
        lowest = list(running)
        steps: list[tuple[list[float], float]] = []
        falls = self._falls
        for time, change in sorted(self._changes):
            if not falls:
                break
            if min(change) >= 0:
                for i, x in enumerate(change):
                    running[i] += x
                continue
            falls -= 1
            running = [f + x for f, x in zip(running, change, strict=True)]
            if any(f < low for f, low in zip(running, lowest, strict=True)):
                if time - now >= classes.shortest and (not steps or steps[-1][0] != lowest):
                    steps.append((lowest, time - now))
                lowest = [min(f, low) for f, low in zip(running, lowest, strict=True)]
                if any(f < least for f, least in zip(lowest, classes.least, strict=True)):
                    return steps
        steps.append((lowest, self.end - now))
        return steps


def sweep(classes: JobClasses, rooms: Iterable[Room], *, abreast: int) -> Filled:
    """Fill rooms in their order until they, or the jobs, are used up.

    Args:
        classes: the jobs; those that are placed are taken.
        rooms: no room is looked at before those before it are in work.
        abreast: rooms filled at a time. More are faster and use the last rooms worse.
    """
    filled = Filled()
    waiting = iter(rooms)
    fronts = list(_next(waiting, classes, abreast))
    while fronts and classes.left:
        free = np.array([front.free for front in fronts])
        length = np.array([front.length for front in fronts])
        rank = classes.rank(free, length)
        labels: list[int] = rank.argmax(axis=1).tolist()
        kept = [
            front
            for front, row, label in zip(fronts, rank, labels, strict=True)
            if (front.fill(row, label, classes, filled) if row.item(label) > 0 else front.later(classes))
        ]
        if len(kept) < abreast:
            kept.extend(_next(waiting, classes, abreast - len(kept)))
        fronts = kept
    return filled


def _next(waiting: Iterator[Room], classes: JobClasses, count: int) -> Iterator[_Front]:
    """So many rooms more in which something might fit."""
    while count and classes.left:
        room = next(waiting, None)
        if room is None:
            return
        front = _Front(room)
        if front.begin(classes):
            count -= 1
            yield front
