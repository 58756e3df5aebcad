"""The host's own jobs: under EASY backfill step by step, or all at once, or as they were recorded."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf, nan
from typing import Literal

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.machines.easy_queue import EasyQueue
from hpcpanda.simulate.trace import Floats, HostTrace

Backfill = Literal["easy", "recorded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSchedule:
    """When the host's jobs ran; item i is job i of the trace, NaN where it never ran. Seconds."""

    start: Floats
    end: Floats

    def span(self, trace: HostTrace) -> tuple[float, float]:
        """From the first start to the last submission: before and after the trace tells too little of the machine."""
        first = float(np.nanmin(self.start))
        last = float(trace.submit[-1])
        return first, last if last > first else float(np.nanmax(self.end))


def host_schedule(trace: HostTrace, *, backfill: Backfill = "easy") -> HostSchedule:
    """The host's jobs alone on the machine's nodes.

    Args:
        trace: the jobs.
        backfill: ``easy`` schedules them anew, first come, first served with EASY backfill by the requested walltimes;
            ``recorded`` takes the starts of the trace.

    Raises:
        InvalidValue: the trace breaks a rule of :class:`HostTrace`, or records no starts.
    """
    if backfill == "recorded":
        if not len(trace) or np.isnan(trace.start).all():
            raise InvalidValue("backfill", f"{trace.source} records no starts; say easy")
        return HostSchedule(start=trace.start.copy(), end=trace.start + trace.run)
    host = HostRun(trace)
    while host.next_time < inf:
        host.step(host.next_time)
    return host.schedule()


class HostRun:
    """The host's jobs scheduled by EASY, one instant after the other.

    Others may occupy and release nodes of :attr:`queue` between the steps.
    """

    def __init__(self, trace: HostTrace) -> None:
        _check(trace)
        self.queue = EasyQueue(trace.machine_nodes)
        self._submit: list[float] = trace.submit.tolist()
        self._nodes: list[int] = trace.nodes.tolist()
        self._run: list[float] = trace.run.tolist()
        self._requested: list[float] = trace.requested.tolist()
        self._start = [nan] * len(trace)
        self._end = [nan] * len(trace)
        self._ends: list[tuple[float, int]] = []
        self._submitted = 0
        self.next_time = self._submit[0] if self._submit else inf
        """When the host's next job is submitted or ends; infinity after the last. Seconds."""

    def step(self, now: float) -> list[int]:
        """All that the host does at ``now``, which is at most :attr:`next_time`; the jobs that start.

        Also to be called when others have released nodes.
        """
        ends, queue = self._ends, self.queue
        while ends and ends[0][0] <= now:
            _, job = heappop(ends)
            queue.release(self._nodes[job], self._start[job] + self._requested[job])
        started = queue.schedule(now)
        while self._submitted < len(self._submit) and self._submit[self._submitted] <= now:
            job = self._submitted
            if queue.submit(job, self._nodes[job], self._requested[job], now):
                started.append(job)
            self._submitted += 1
        for job in started:
            self._start[job] = now
            self._end[job] = now + self._run[job]
            heappush(ends, (self._end[job], job))
        submit = self._submit[self._submitted] if self._submitted < len(self._submit) else inf
        self.next_time = min(submit, ends[0][0]) if ends else submit
        return started

    def schedule(self) -> HostSchedule:
        """What has started so far."""
        return HostSchedule(start=np.array(self._start), end=np.array(self._end))


def _check(trace: HostTrace) -> None:
    """Refuse columns that no schedule can be made of."""
    rules = (
        ("submit", np.diff(trace.submit, prepend=-inf) < 0, "is before that of the job in front of it"),
        ("nodes", (trace.nodes < 1) | (trace.nodes > trace.machine_nodes), "is not 1..machine_nodes"),
        ("run", ~(trace.run > 0), "is not more than 0 s"),
        ("requested", ~(trace.requested >= trace.run), "is less than its run time"),
    )
    for name, broken, problem in rules:
        if broken.any():
            job = int(np.argmax(broken))
            value = getattr(trace, name)[job]
            raise InvalidValue(f"trace.{name}", f"{value:g} of job {job} of {trace.source} {problem}")
