"""A simulated work pack: what its cores have done by a given time, in a few sums whatever the number of events."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpcpanda.simulate.trace import Floats
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.workload import Cut, JobWork, RangeCosts


@dataclass(frozen=True, slots=True)
class Done:
    """What a pack has newly finished."""

    events: int = 0
    jobs: int = 0
    """Their number; how long each ran is in :attr:`PackJobs.ran`."""


class PackJobs:
    """Jobs of a pack: started in the order given, each on the slot that is free first, if its limit fits."""

    def __init__(self, work: JobWork, *, slots: int, begins: float, deadline: float) -> None:
        self._work = work
        self._deadline = deadline
        self._free_at: Floats = np.full(slots, begins)
        self._start: Floats = np.empty(0)
        self._finish: Floats = np.empty(0)
        self._failed = np.empty(0, dtype=bool)
        self.unstarted = 0
        """Jobs that cannot be started any more."""
        self.ran: Floats = np.empty(0)
        """Seconds of jobs that succeeded and were not taken yet."""

    @property
    def held(self) -> int:
        """Jobs that are not finished."""
        return len(self._finish) + self.unstarted

    @property
    def started(self) -> int:
        """Jobs that run, or will."""
        return len(self._finish)

    @property
    def last_finish(self) -> float:
        """When the last of them ends; minus infinity without any."""
        return float(self._finish.max()) if len(self._finish) else -math.inf

    @property
    def next_slot(self) -> float:
        """When a slot is free for a further job; infinity when none could end in time."""
        free = float(self._free_at.min()) if len(self._free_at) else math.inf
        return free if free + self._work.limit_s <= self._deadline else math.inf

    def give(self, count: int, now: float, rng: np.random.Generator) -> None:
        """Place jobs."""
        while count:
            batch = min(count, len(self._free_at))
            order = np.argsort(self._free_at, kind="stable")[:batch]
            start = np.maximum(self._free_at[order], now)
            fits = start + self._work.limit_s <= self._deadline
            order, start = order[fits], start[fits]
            if not len(order):
                self.unstarted += count
                return
            run = self._work.run_times(rng, len(order))
            finish = start + np.minimum(run, self._work.limit_s)
            self._free_at[order] = finish
            self._start = np.concatenate([self._start, start])
            self._finish = np.concatenate([self._finish, finish])
            self._failed = np.concatenate([self._failed, run > self._work.limit_s])
            count -= len(order)

    def busy(self, since: float, until: float) -> float:
        """Core-seconds of them in a stretch of time."""
        overlap = np.minimum(self._finish, until) - np.maximum(self._start, since)
        return float(np.maximum(0.0, overlap).sum()) * self._work.cores

    def worked_off(self, core_s: float, *, since: float, cores: int) -> float:
        """When so many core-seconds are done on the cores that they leave, of so many, from ``since`` on."""
        if not len(self._finish):
            return since + core_s / cores
        times = np.concatenate([self._start, self._finish])
        change = np.repeat([-self._work.cores, self._work.cores], len(self._finish))
        order = np.argsort(times, kind="stable")
        order = order[times[order] > since]
        at = np.concatenate([[since], times[order]])
        free = cores - self.cores_at(since) + np.concatenate([[0], np.cumsum(change[order])])
        done = np.concatenate([[0.0], np.cumsum(free[:-1] * np.diff(at))])
        last = max(int(np.searchsorted(done, core_s)) - 1, 0)
        return float(at[last] + (core_s - done[last]) / free[last])

    def cores_at(self, now: float) -> int:
        """Cores that they have."""
        if not len(self._finish):
            return 0
        return int(((self._start <= now) & (self._finish > now)).sum()) * self._work.cores

    def cores_waited_for(self, cores: int) -> int:
        """Cores that they have or wait for, of so many."""
        return min(cores, len(self._finish) * self._work.cores)

    def collect(self, now: float, account: Account) -> int:
        """Take out jobs that have ended; gives the number of those that succeeded."""
        over = self._finish <= now
        seconds = (self._finish - self._start) * self._work.cores
        good = over & ~self._failed
        self.ran = np.concatenate([self.ran, (self._finish - self._start)[good]])
        account.useful += float(seconds[good].sum())
        account.lost += float(seconds[over & self._failed].sum())
        self.unstarted += int((over & self._failed).sum())  # back to the dispatcher with the pack
        self._start, self._finish, self._failed = (
            column[~over] for column in (self._start, self._finish, self._failed)
        )
        return int(good.sum())

    def kill(self, now: float, account: Account) -> None:
        """Everything that runs is lost."""
        account.lost += self.busy(-math.inf, now)
        self._start, self._finish = np.empty(0), np.empty(0)
        self._failed = np.empty(0, dtype=bool)


class PackModel:
    """A work pack from its begin on.

    Time in the pack: start-up, then work, then (told by :meth:`end`) what its end costs. Jobs have their cores first;
    events stream through the others.
    """

    def __init__(
        self,
        costs: RangeCosts,
        event_seconds: float,
        jobs: PackJobs,
        *,
        cores: int,
        begins: float,
        startup_s: float,
        sync_s: float,
        account: Account,
    ) -> None:
        self._costs = costs
        self._event_s = event_seconds
        self._cores = cores
        self._begins = begins
        self._sync_s = sync_s
        self._account = account
        self._at = begins
        self._ready_at = begins + startup_s
        self._given = 0
        self._told = 0
        self._busy = 0.0
        self.jobs = jobs
        self.not_taken = Done()
        """Finished, and not taken yet."""

    @property
    def cores(self) -> int:
        """All of them."""
        return self._cores

    @property
    def ready_at(self) -> float:
        """End of the start-up."""
        return self._ready_at

    @property
    def events(self) -> int:
        """Events here that are not finished."""
        return self._given - self._told

    @property
    def work_left(self) -> float:
        """Core-seconds of events that are not done, by their mean cost."""
        return max(0.0, self._given * self._event_s - self._busy)

    def backlog_s(self, now: float) -> float:
        """For how long the free cores have events."""
        return self.work_left / max(1, self._cores - self.jobs.cores_at(now))

    def dry_at(self) -> float:
        """When its events are used up: those cores work on them that its jobs leave."""
        if not self.work_left:
            return self._at
        since = max(self._at, self._ready_at)
        return self.jobs.worked_off(self.work_left, since=since, cores=self._cores)

    def idle_at(self) -> float:
        """When it has nothing to do; it is now when that is in the past."""
        return max(self.dry_at(), self.jobs.last_finish)

    def give_events(self, count: int) -> None:
        """More events."""
        self._given += count

    def take_done(self) -> Done:
        """What was finished since the last call."""
        done, self.not_taken = self.not_taken, Done()
        return done

    def settle(self, now: float) -> None:
        """Account for the time since the last call; what is newly finished and journalled is to be taken."""
        if now == self._at:
            return
        work_from = min(max(self._at, self._ready_at), now)
        self._account.startup += self._cores * (work_from - min(self._at, work_from))
        capacity = self._cores * (now - work_from)
        with_jobs = self.jobs.busy(self._at, now) if self.jobs.started else 0.0
        used = min(max(0.0, capacity - with_jobs), self.work_left)
        self._busy += used
        self._account.unfilled += capacity - with_jobs - used
        self._at = max(self._at, now)
        self._collect_jobs(now)
        if self._given > self._told:
            self._tell(self._journalled(now))

    def _collect_jobs(self, now: float) -> None:
        if self.jobs.started and (jobs := self.jobs.collect(now, self._account)):
            self._account.jobs += jobs
            self.not_taken = Done(self.not_taken.events, self.not_taken.jobs + jobs)

    def _journalled(self, now: float) -> int:
        """Events that would be kept if it were killed now."""
        if not self.work_left:
            return self._given
        flight = -self._costs.killed(self._sync_s).kept * (self._cores - self.jobs.cores_at(now))
        return math.floor(max(0.0, self._busy - flight) / self._event_s)

    def _tell(self, finished: int) -> None:
        new = max(0, min(finished, self._given) - self._told)
        self._told += new
        self._account.events += new
        self._account.useful += new * self._event_s
        self.not_taken = Done(self.not_taken.events + new, self.not_taken.jobs)

    def killed(self, now: float) -> None:
        """It is gone without a warning."""
        self._end(now, self._costs.killed(self._sync_s))

    def preempted(self, now: float, grace_s: float) -> float:
        """It is told to end within the grace time; gives how long that takes."""
        return self._end_with_jobs(now, self._costs.preempted(grace_s), grace_s)

    def drained(self, now: float, grace_s: float) -> float:
        """Its deadline has come, which it knew of; gives how long it takes to end."""
        return self._end_with_jobs(now, self._costs.drained(grace_s), grace_s)

    def _end_with_jobs(self, now: float, cut: Cut, grace_s: float) -> float:
        self.settle(now)
        after = cut.after if self.work_left and now > self._ready_at else 0.0
        after = max(after, min(grace_s, self.jobs.last_finish - now))
        self._end(now, Cut(cut.kept, cut.lost, after))
        return after

    def _end(self, now: float, cut: Cut) -> None:
        """Account for its end; what it has not finished is not done."""
        self.settle(now)
        running = self._cores - self.jobs.cores_at(now) if self.work_left and now > self._ready_at else 0
        unaccounted = self._busy - self._told * self._event_s
        kept = max(cut.kept * running, -unaccounted)
        lost = max(0.0, cut.lost * running - (kept - cut.kept * running))
        with_jobs = self.jobs.busy(now, now + cut.after)
        self._tell(math.floor((self._busy + kept) / self._event_s + 1e-6))
        self._account.lost += lost + self._busy + kept - self._told * self._event_s
        self._account.drain += self._cores * cut.after - with_jobs - kept - lost
        self._collect_jobs(now + cut.after)
        self.jobs.kill(now + cut.after, self._account)
