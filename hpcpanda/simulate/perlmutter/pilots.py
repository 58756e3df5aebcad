"""Single-core pilots in one-node allocations: what is done today, and what could be done without events.

Each pilot takes a job; when it has finished, perhaps another. The allocation is held until its last pilot has ended, or
to the wall, which kills what runs.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcpanda.simulate.perlmutter.jobs import HOUR
from hpcpanda.simulate.perlmutter.results import CoreHours
from hpcpanda.simulate.trace import Floats

_LOOK: Final = 200
"""Waiting jobs that are looked at, oldest first, for one that fits."""


class Fate(IntEnum):
    """What became of a job."""

    WAITING = 0
    FINISHED = 1
    KILLED = 2
    """At the wall."""
    NODE_LOST = 3
    NEVER = 4
    """Its limit is longer than an allocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotRules:
    """When a pilot takes a job."""

    name: str
    what: str
    floor_s: float = 0.0
    """It takes another while its elapsed time is under this (PanDA's ``timefloor``); 0: it runs one job."""
    truthful: bool = False
    """It takes another, and any, only if the job's time, known exactly, fits before the wall; without a floor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotShape:
    """The allocations that pilots run in."""

    pilots: int
    wall_s: float
    startup_s: float
    """Before the first job of each pilot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotRun:
    """What came of it."""

    core_hours: CoreHours
    fates: NDArray[np.int8]
    """Of each job."""
    half_idle: int
    """Allocations in which half of the pilots had ended before the end."""


class _Waiting:
    """Jobs that wait, oldest first."""

    def __init__(self, seconds: Floats, longest_s: float) -> None:
        self._seconds = seconds.tolist()
        self._next = 0
        self._passed: deque[int] = deque()
        self._longest = longest_s
        self.fates = np.zeros(len(seconds), np.int8)

    def first(self) -> int:
        """The oldest."""
        self._next += 1
        return self._next - 1

    def first_that_fits(self, room_s: float) -> int | None:
        """The oldest, of so many as one looks at, that takes no longer; those that no allocation holds are set aside."""
        for position, job in enumerate(self._passed):
            if self._seconds[job] <= room_s:
                del self._passed[position]
                return job
            if position == _LOOK:
                return None
        for _ in range(_LOOK - len(self._passed)):
            job = self.first()
            if self._seconds[job] <= room_s:
                return job
            if self._seconds[job] > self._longest:
                self.fates[job] = Fate.NEVER
            else:
                self._passed.append(job)
        return None


def run_pilots(rules: PilotRules, shape: PilotShape, jobs: Floats, lost_at: Sequence[float]) -> PilotRun:
    """Run one allocation for each entry of ``lost_at``, the time at which it loses its node.

    Args:
        rules: when a pilot takes a job.
        shape: of all the allocations.
        jobs: seconds of the waiting jobs; more than can be taken.
        lost_at: seconds after the begin; infinity for never.

    Raises:
        IndexError: there are too few jobs.
    """
    waiting = _Waiting(jobs, shape.wall_s - shape.startup_s)
    sums = _Sums()
    for lost in lost_at:
        _one(rules, shape, jobs, waiting, lost, sums)
    hours = CoreHours(
        useful=sums.useful / HOUR,
        lost_wall=sums.wall / HOUR,
        lost_node=sums.node / HOUR,
        lost_timeout=0.0,
        startup=sums.startup / HOUR,
        idle=sums.idle / HOUR,
    )
    return PilotRun(core_hours=hours, fates=waiting.fates, half_idle=sums.half_idle)


@dataclass(slots=True)
class _Sums:
    """Core-seconds."""

    useful: float = 0.0
    wall: float = 0.0
    node: float = 0.0
    startup: float = 0.0
    idle: float = 0.0
    half_idle: int = 0


def _one(
    rules: PilotRules, shape: PilotShape, jobs: Floats, waiting: _Waiting, lost: float, sums: _Sums
) -> None:
    """One allocation."""
    end = min(shape.wall_s, lost)
    begin = min(shape.startup_s, end)
    sums.startup += shape.pilots * begin
    free = [begin] * shape.pilots
    ended: list[float] = []
    while free:
        now = heapq.heappop(free)
        job = _next_job(rules, shape, waiting, now) if now < end else None
        if job is None:
            ended.append(now)
            continue
        done = now + float(jobs[job])
        if done <= end:
            waiting.fates[job] = Fate.FINISHED
            sums.useful += done - now
            heapq.heappush(free, done)
        elif lost < shape.wall_s:
            waiting.fates[job] = Fate.NODE_LOST
            sums.node += end - now
            ended.append(end)
        else:
            waiting.fates[job] = Fate.KILLED
            sums.wall += end - now
            ended.append(end)
    last = max(ended)
    sums.idle += sum(last - at for at in ended)
    sums.half_idle += sum(at < last for at in ended) * 2 >= shape.pilots


def _next_job(rules: PilotRules, shape: PilotShape, waiting: _Waiting, now: float) -> int | None:
    """The job that a pilot takes, if it takes one."""
    if rules.truthful:
        return waiting.first_that_fits(shape.wall_s - now)
    if now <= shape.startup_s or now < rules.floor_s:
        return waiting.first()
    return None
