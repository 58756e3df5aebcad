"""EASY backfill over the node count of a machine: who starts when.

First come, first served, with one reservation: the first waiting job is promised the earliest time at which enough
nodes are free if every running job takes all of its requested walltime (the *shadow time*). A later job may overtake
it when it ends before that time, or uses only nodes that the first job will not need then (the *extra* nodes).

Sources: D. Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995; A. Mu'alem and D. Feitelson, "Utilization,
predictability, workloads, and user runtime estimates in scheduling the IBM SP2 with backfilling", IEEE TPDS 12 (2001).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import accumulate
from math import inf

import numpy as np
from numpy.typing import NDArray

from hpcpanda.simulate.trace import Floats, Ints

_GONE = 2**31 - 1
"""Nodes of a place in the queue whose job has left it: more than ever are free."""
_ROOM = 1024
"""Places of the queue at first."""
_ROUND = 12
"""Candidates that are looked at one by one before those that follow are sieved again."""
_SLACK_S = 1e-3
"""The sieve lets so much more through than the rule, which is then applied exactly."""


class EasyQueue:
    """The waiting jobs, what runs by its expected end, and the rule; the caller tells what ends and what is submitted.

    Work per submission is constant; per end, one vectorised look at the waiting jobs where nodes are free for any.
    """

    def __init__(self, machine_nodes: int) -> None:
        self.free = machine_nodes
        """Nodes on which nothing runs."""
        self.shadow = inf
        """Time until which all free nodes may be used: when the first waiting job starts at the latest."""
        self.extra = machine_nodes
        """Nodes that may be used beyond the shadow time; without a waiting job they are not bounded by it."""
        self._running: list[tuple[float, int]] = []
        self._before = 0
        self._stale = False
        self._jobs: Ints = np.zeros(_ROOM, dtype=np.int64)
        self._nodes: NDArray[np.int32] = np.full(_ROOM, _GONE, dtype=np.int32)
        self._requested: Floats = np.zeros(_ROOM)
        self._head = 0
        self._tail = 0
        self._head_nodes = 0
        self._waiting = 0
        self._least = _GONE

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return self._waiting

    def admits(self, nodes: int, seconds: float, now: float) -> bool:
        """Whether a job at the end of the queue may start now without delaying the first."""
        if nodes > self.free:
            return False
        return not self._waiting or nodes <= self.extra or now + seconds <= self.shadow

    def submit(self, job: int, nodes: int, requested: float, now: float) -> bool:
        """Add a job at the end of the queue; True when it starts now instead."""
        if self.admits(nodes, requested, now):
            self.occupy(nodes, now + requested)
            return True
        if self._tail == len(self._jobs) or self._tail - self._head > 2 * self._waiting + _ROOM // 16:
            self._tidy()
        place = self._tail
        self._jobs[place], self._nodes[place], self._requested[place] = job, nodes, requested
        self._tail += 1
        self._waiting += 1
        self._least = min(self._least, nodes)
        if self._waiting == 1:
            self._head, self._head_nodes = place, nodes
            self._reserve()
        return False

    def occupy(self, nodes: int, until: float) -> None:
        """Something starts on free nodes and is expected to end then."""
        insort(self._running, (until, nodes))
        self.free -= nodes
        if self._waiting and until >= self.shadow:
            self._before -= nodes
            if until > self.shadow:
                self.extra -= nodes

    def release(self, nodes: int, until: float) -> None:
        """Something ends that had been expected to end at ``until``; :meth:`schedule` follows."""
        del self._running[bisect_left(self._running, (until, nodes))]
        self.free += nodes
        if self._waiting and until >= self.shadow:
            # What was expected before the shadow time was counted for the first job already.
            self._before += nodes
            if until > self.shadow:
                self.extra += nodes
            self._stale = self._stale or self._before >= self._head_nodes

    def schedule(self, now: float) -> list[int]:
        """Start what may start after nodes were released; the jobs, in order."""
        started: list[int] = []
        while self._waiting and self._head_nodes <= self.free:
            self._start(self._head, now, started)
            self._to_next_head()
        if self._waiting:
            if self._stale:
                self._reserve()
            if self.free >= self._least:
                self._backfill(now, started)
        return started

    def _start(self, place: int, now: float, started: list[int]) -> None:
        """The job at a place of the queue starts."""
        self.occupy(int(self._nodes[place]), now + float(self._requested[place]))
        self._nodes[place] = _GONE
        self._waiting -= 1
        started.append(int(self._jobs[place]))

    def _to_next_head(self) -> None:
        """The first of those that still wait becomes the one with the reservation."""
        if not self._waiting:
            self._head = self._tail = 0
            self._least = _GONE
            self.shadow, self._stale = inf, False
            return
        self._head += 1
        while self._nodes[self._head] == _GONE:
            self._head += 1
        self._head_nodes = int(self._nodes[self._head])
        self._stale = True

    def _reserve(self) -> None:
        """Shadow time and extra nodes for the first waiting job, which does not fit now."""
        running, missing = self._running, self._head_nodes - self.free
        first = next(k for k, total in enumerate(accumulate(n for _, n in running)) if total >= missing)
        self.shadow = running[first][0]
        same = bisect_left(running, (self.shadow, 0))
        self._before = self.free + sum(n for _, n in running[:same])
        after = bisect_left(running, (self.shadow, _GONE), lo=first)
        self.extra = self._before + sum(n for _, n in running[same:after]) - self._head_nodes
        self._stale = False

    def _backfill(self, now: float, started: list[int]) -> None:
        """Start what may overtake the first job, in the order of the queue."""
        place = self._head + 1
        nodes, requested = self._nodes[place : self._tail], self._requested[place : self._tail]
        sieve = (nodes <= self.free).nonzero()[0]
        while len(sieve):
            if len(sieve) > _ROUND:
                width, short = nodes[sieve], requested[sieve] <= self.shadow - now + _SLACK_S
                sieve = sieve[(width <= self.free) & (short | (width <= self.extra))]
            for k in sieve[:_ROUND].tolist():
                if self.admits(int(nodes[k]), float(requested[k]), now):
                    self._start(place + k, now, started)
            sieve = sieve[_ROUND:]

    def _tidy(self) -> None:
        """Close the gaps of the queue; make it larger when it is more than half full."""
        kept = np.flatnonzero(self._nodes[: self._tail] != _GONE)
        room = len(self._jobs) * (2 if 2 * len(kept) > len(self._jobs) else 1)
        for name, empty in (("_jobs", 0), ("_nodes", _GONE), ("_requested", 0)):
            old = getattr(self, name)
            new = np.full(room, empty, dtype=old.dtype)
            new[: len(kept)] = old[kept]
            setattr(self, name, new)
        self._head, self._tail = 0, len(kept)
        self._least = int(self._nodes[: self._tail].min(initial=_GONE))
