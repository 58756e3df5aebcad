"""The workers of one node in simulated time: each takes as long over a range as its events cost.

What they run is decided by production's :class:`~hpcpanda.allocation.node_work.NodeWork`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpcpanda.allocation.node_work import Command, NodeWork
from hpcpanda.events.journal import ENTRY


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished range."""

    at: float
    """Seconds since the begin of the allocation."""
    epoch: int
    first: int
    last: int
    seconds: float
    """What it cost."""


@dataclass(slots=True)
class _Slot:
    """A core and its worker."""

    since: float
    """When it began what it does, or fell idle."""
    command: Command | None = None
    first: int = 0
    """Of the range in hand, as is ``last``; the same when there is none."""
    last: int = 0

    @property
    def busy(self) -> bool:
        """Whether a range is in hand."""
        return self.first < self.last


class Workers:
    """All workers of a node."""

    def __init__(
        self, work: NodeWork, *, seconds: Callable[[int, int], float], timeout_s: float, begin: float
    ) -> None:
        """``seconds``: cost of the events of a range; ``timeout_s``: longest that a range may take."""
        self._work = work
        self._seconds = seconds
        self._timeout_s = timeout_s
        self._slots = [_Slot(since=begin) for _ in work.slots]
        self._idle = set(range(len(work.slots)))
        self._ends: list[tuple[float, int]] = []
        self._stopped = False
        self.idle_s = 0.0
        """Core-seconds without work, up to the last change of each core."""
        self.timeout_lost_s = 0.0
        """Core-seconds of ranges that took too long."""
        self.finished: list[Finished] = []
        """Since the list was last emptied."""

    @property
    def next_end(self) -> float:
        """When the next range ends; infinity when none is in hand."""
        return self._ends[0][0] if self._ends else math.inf

    @property
    def idle(self) -> int:
        """Cores without work."""
        return len(self._idle)

    def feed(self, now: float) -> None:
        """Give idle cores what there is."""
        for number in sorted(self._idle):
            self._next(number, now)
            if number in self._idle:
                return

    def end_range(self) -> None:
        """Let the next range end, in time or not, and its worker go on."""
        now, number = heapq.heappop(self._ends)
        slot = self._slots[number]
        command, first, last = slot.command, slot.first, slot.last
        assert command is not None, "a worker without a command has ended a range"
        slot.first = last
        seconds = self._seconds(first, last)
        if seconds > self._timeout_s:
            self._timed_out(number, command, first, last, now)
        else:
            entry = np.zeros(1, ENTRY)
            entry["epoch"], entry["slot"] = command.epoch, number
            entry["first"], entry["last"], entry["wall_s"] = first, last, seconds
            self._work.results(number, entry, now)
            self.finished.append(Finished(now, command.epoch, first, last, seconds))
        slot.since = now
        self._idle.add(number)
        self._next(number, now)

    def stop(self, now: float) -> None:
        """Begin no range any more; what was not begun goes back."""
        self._stopped = True
        self._work.stop()
        for number, slot in enumerate(self._slots):
            if slot.command is not None and slot.last < slot.command.last:
                self._work.skipped(number, slot.command.epoch, slot.last, slot.command.last, now)
                slot.command = Command(
                    epoch=slot.command.epoch, first=slot.first, last=slot.last, step=1, latest_start=now
                )

    def close(self, end: float) -> float:
        """The allocation has ended: gives the core-seconds of what was in flight."""
        lost = 0.0
        for slot in self._slots:
            if slot.busy:
                lost += end - slot.since
            else:
                self.idle_s += end - slot.since
        return lost

    def _next(self, number: int, now: float) -> None:
        """Begin a core's next range, if it has one."""
        slot = self._slots[number]
        while not self._stopped:
            command = slot.command
            if command is None or slot.last == command.last:
                slot.command = command = self._work.next_command(number, now)
                if command is None:
                    return
                slot.first = slot.last = command.first
            if now <= command.latest_start:
                break
            self._work.skipped(number, command.epoch, slot.last, command.last, now)
            slot.command = None
        else:
            return
        slot.first, slot.last = slot.last, min(slot.last + command.step, command.last)
        self.idle_s += now - slot.since
        slot.since = now
        self._idle.discard(number)
        heapq.heappush(self._ends, (now + min(self._seconds(slot.first, slot.last), self._timeout_s), number))

    def _timed_out(self, number: int, command: Command, first: int, last: int, now: float) -> None:
        """The agent ends the worker and forks another; the coordinator decides what becomes of the range."""
        self.timeout_lost_s += self._timeout_s
        text = f"the range took longer than {self._timeout_s} s"
        self._work.failed(number, command.epoch, first, last, text, now)
        self._work.vacate(number, now)
        self._slots[number].command = None
