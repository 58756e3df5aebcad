"""The dispatcher of a simulation: it always has work, and gives what is asked for under the production ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from hpcpanda.planning.actions import Want
from hpcpanda.simulate.simulated_edge.books import Books
from hpcpanda.simulate.simulated_edge.state import EVENTS, JOBS
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.workload import Workload

_PLENTY: Final = 10**15
"""Events, or jobs, of a task: more than any simulation does."""
_UNKNOWN_S: Final = 1.0
"""Core-seconds taken for an event of which nothing is known."""


class SimulatedDispatcher:
    """Has a task of events, or one of jobs, or both; jobs get their share of what is given."""

    def __init__(self, work: Workload, account: Account, *, with_events: bool, with_jobs: bool) -> None:
        self._work = work
        self._units = {
            EVENTS: work.events.event_seconds,
            JOBS: work.jobs.cores * work.jobs.median_s,
        }
        self._job_share = work.job_share if with_events else 1.0
        self._granted_s = {EVENTS: 0.0, JOBS: 0.0}
        self.books: dict[int, Books] = {}
        """Of each task that there is."""
        if with_events:
            self.books[EVENTS] = Books(_PLENTY, account, self._units[EVENTS])
        if with_jobs and self._job_share:
            self.books[JOBS] = Books(_PLENTY, account, self._units[JOBS])

    def answer(
        self,
        wants: Iterable[Want],
        now: float,
        event_seconds: float | None,
        *,
        besides_s: Callable[[], float],
    ) -> int:
        """Give work for what is wanted; how much came. ``besides_s`` gives core-seconds of events that are added to it."""
        cost = event_seconds or _UNKNOWN_S
        got = sum(self._jobs_for(want, now) + self._events_for(want, now, cost) for want in wants)
        if got and EVENTS in self.books:
            got += self._grant(EVENTS, math.ceil(besides_s() / cost), now)
        return got

    def give_back(self, task: int) -> None:
        """The edge returns what is ready of a task."""
        self._granted_s[task] -= self.books[task].ready * self._units[task]
        self.books[task].give_back()

    def _jobs_for(self, want: Want, now: float) -> int:
        """Jobs, if one fits and they have not had their share: as many as keep the cores busy for so long."""
        if JOBS not in self.books or want.only == "events" or want.task_id not in (None, JOBS):
            return 0
        if JOBS in want.without or (want.room and want.room.refusal(self._work.jobs.request) is not None):
            return 0
        core_s = want.cores * max(want.seconds, self._work.jobs.median_s)
        all_s = sum(self._granted_s.values()) + core_s
        left = self._job_share * all_s - self._granted_s[JOBS] if self._job_share < 1 else inf
        return self._grant(JOBS, math.floor(min(core_s, left) / self._units[JOBS]), now)

    def _events_for(self, want: Want, now: float, cost: float) -> int:
        if EVENTS not in self.books or want.only == "jobs" or want.task_id not in (None, EVENTS):
            return 0
        return self._grant(EVENTS, math.ceil(want.cores * want.seconds / cost), now)

    def _grant(self, task: int, count: int, now: float) -> int:
        if count <= 0:
            return 0
        got = self.books[task].acquire(count, now)
        self._granted_s[task] += got * self._units[task]
        return got
