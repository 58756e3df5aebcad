"""What a simulated edge learns on its way, by the production's prediction; nothing of it is told beforehand."""

from __future__ import annotations

from typing import Final

import numpy as np

from hpcpanda.packing.forecast import Forecast
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda.prediction.tasks import TaskWords
from hpcpanda.simulate.simulated_edge.state import EVENTS, JOBS, SimAllocation
from hpcpanda.simulate.trace import Floats
from hpcpanda.simulate.work.workload import RangeCosts, Workload

_SAMPLE: Final = 4
"""Ranges of a report that are looked at: reports are many."""
_FRESH_S: Final = 1800.0
"""A forecast is used for so long."""


class Learning:
    """What was seen of events, jobs and allocations, and what follows from it."""

    def __init__(self, work: Workload, costs: RangeCosts, rng: np.random.Generator) -> None:
        self._knowledge = Knowledge.fresh(0.0)
        self._knowledge.meet(JOBS, TaskWords(walltime_s=work.jobs.limit_s), 0.0)
        self._costs = costs
        self._startup_s = work.startup_s
        self._rng = rng
        self._forecast = Forecast()
        self._made = -_FRESH_S
        self._events_at: float | None = None
        self._event_seconds: float | None = None
        self._jobs_at: float | None = None
        self._job_seconds: float | None = None

    @property
    def event_seconds(self) -> float | None:
        """Core-seconds of an event, as far as is known; worked out when it is asked for after something was seen."""
        if self._events_at is not None:
            self._event_seconds = self._knowledge.event_seconds(EVENTS, self._events_at)
            self._events_at = None
        return self._event_seconds

    @property
    def job_seconds(self) -> float | None:
        """Walltime of a job at the risk that predictions are made for; worked out in the same way."""
        if self._jobs_at is not None:
            self._job_seconds = self._knowledge.job_seconds(JOBS, self._jobs_at)
            self._jobs_at = None
        return self._job_seconds

    def saw_events(self, events: int, now: float) -> None:
        """A pack has reported finished events: some of its ranges are looked at."""
        ranges = min(_SAMPLE, max(1, events // self._costs.events))
        counts = np.full(ranges, float(min(events, self._costs.events)))
        seconds = self._costs.draw(self._rng, ranges) * counts / self._costs.events
        self._knowledge.saw_events(EVENTS, counts, seconds, now)
        self._events_at = now

    def saw_jobs(self, seconds: Floats, now: float) -> None:
        """Jobs have ended after so long."""
        self._knowledge.saw_jobs(JOBS, seconds, now)
        self._jobs_at = now

    def saw_start(self, allocation: SimAllocation, now: float) -> None:
        """An allocation has begun."""
        waited = now - allocation.submitted
        self._knowledge.saw_allocation(allocation.nodes, allocation.walltime_s, waited, now)
        self._knowledge.saw_start_up(self._startup_s, now)

    def saw_end(self, allocation: SimAllocation, now: float, *, lost: bool) -> None:
        """An allocation is over; ``lost``: preempted, or a node of it failed."""
        self._knowledge.saw_held(allocation.nodes, allocation.started, now)
        if lost:
            self._knowledge.saw_preemption(now)

    def forecast(self, now: float) -> Forecast:
        """How allocations will fare."""
        if now - self._made >= _FRESH_S:
            self._made = now
            self._forecast = self._knowledge.forecast(now)
        return self._forecast
