"""The queue of the Perlmutter scenario: how many allocations production's requests get in the published 14 days."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from hpcpanda.packing.requests import Held, LooseWork, RequestRules, WorkAtHand, plan_requests
from hpcpanda.simulate.perlmutter.jobs import HOUR
from hpcpanda.simulate.perlmutter.published import P90, PUBLISHED
from hpcpanda.simulate.perlmutter.stream import perlmutter_site

_DAY: Final = 24 * HOUR
_WAIT_MEDIAN_S: Final = PUBLISHED.wait_median * HOUR
_WAIT_SIGMA: Final = math.log(PUBLISHED.wait_p90 / PUBLISHED.wait_median) / P90
_NODE: Final = replace(RequestRules.of_site(perlmutter_site()), most_nodes=1)
"""One-node requests of the published walltime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """What requests get, when so many may be queued or running."""

    limit: int
    """The site's limit of allocations."""
    started: int
    wait_median_s: float
    """Of those that started, as is the next."""
    wait_p90_s: float
    waiting: float
    """Requests that wait, mean over time."""
    running: float

    @property
    def a_day(self) -> float:
        """Allocations that start in a day."""
        return self.started / PUBLISHED.days


def run_queue(limit: int, *, seed: int = 1) -> QueueFigures:
    """Ask as the planner does, with nothing known of holes, whenever an allocation begins or ends.

    Waits are drawn independently from a lognormal distribution with the published median and 90th percentile: the
    waiting of one request says nothing about that of another, and does not grow with their number, which is kind to large
    limits.

    Raises:
        InvalidValue: the limit is outside 1..10000.
    """
    queue = _Queue(limit, np.random.default_rng((seed, 4)))
    until = PUBLISHED.days * _DAY
    waited_s = ran_s = now = 0.0
    while now < until:
        queue.ask(now)
        at = min(queue.next_change, until)
        waited_s += queue.waiting * (at - now)
        ran_s += (len(queue.held) - queue.waiting) * (at - now)
        now = at
        if now < until:
            queue.change()
    started = queue.started
    return QueueFigures(
        limit=limit,
        started=len(started),
        wait_median_s=float(np.median(started)) if started else 0.0,
        wait_p90_s=float(np.quantile(started, 0.9)) if started else 0.0,
        waiting=waited_s / until,
        running=ran_s / until,
    )


class _Queue:
    """Requests that wait and allocations that run."""

    def __init__(self, limit: int, random: np.random.Generator) -> None:
        self._rules = replace(_NODE, allocations=limit, nodes=limit, queued=limit)
        self._work = WorkAtHand(loose=(LooseWork(nodes=limit),))
        self._random = random
        self._changes: list[tuple[float, int]] = []
        self._waits: list[float] = []
        self.held: dict[int, Held] = {}
        self.started: list[float] = []
        """Seconds that those waited that have started."""

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(h.queued for h in self.held.values())

    @property
    def next_change(self) -> float:
        """When the next allocation begins or ends; there is always one."""
        return self._changes[0][0]

    def ask(self, now: float) -> None:
        """Submit what the planner asks for."""
        for request in plan_requests(None, self._rules, self._work, tuple(self.held.values())).requests:
            number = len(self._waits)
            wait = _WAIT_MEDIAN_S * math.exp(_WAIT_SIGMA * self._random.standard_normal())
            self._waits.append(wait)
            self.held[number] = Held(
                nodes=request.nodes, seconds=request.walltime_s, queue=request.queue, queued=True
            )
            heapq.heappush(self._changes, (now + wait, number))

    def change(self) -> None:
        """Let the next allocation begin or end."""
        now, number = heapq.heappop(self._changes)
        held = self.held[number]
        if held.queued:
            self.started.append(self._waits[number])
            self.held[number] = replace(held, queued=False)
            heapq.heappush(self._changes, (now + held.seconds, number))
        else:
            del self.held[number]
