"""What the job queue knows of each task and of each node. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from hpcpanda.allocation.job_messages import JobLoad
from hpcpanda.allocation.job_space import Space
from hpcpanda.allocation.plan import LeasedEvents, TaskWork
from hpcpanda.domain.failures import FailureFacts
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.splitting import JobSlice

COVER_S: Final = 1.0
"""Jobs shorter than this are short: a node gets about so many seconds of them beyond those that run."""

_STARTS_PER_S: Final = 2000
"""More jobs a second than this a node starts hardly: fork and exec alone take 0.3 ms."""

_RATE_MEMORY_S: Final = 5.0
_TIME_MEMORY: Final = 32
"""About so many of the last jobs decide what is thought of the next."""


@dataclass(slots=True, eq=False)
class Job:
    """A job in hand of nodes, or waiting to be tried again."""

    task: TaskAccount
    epoch: int
    number: int
    attempt: int = 1
    faults: int = 0
    """How often a node was at fault."""
    lost_runners: int = 0
    """How often the process that kept it has ended."""
    avoid: frozenset[int] = frozenset()
    """Ranks that it has failed on."""
    tickets: dict[int, int] = field(default_factory=dict)
    """Runs of it, each with its rank."""
    starts: int = 0
    """Runs that this attempt has had."""
    error: str | None = None
    """Why a run of this attempt has failed."""
    facts: FailureFacts | None = None
    """What else is known of that."""
    winner: int | None = None
    """The clone that may be recorded."""
    over: bool = False
    """It is accounted for, or revoked: what becomes of its runs does not matter any more."""


@dataclass(slots=True)
class EpochAccount:
    """Jobs under one epoch: each that was ever seen is pending, in hand, done, failed or left undone."""

    seen: IntervalSet = EMPTY
    pending: IntervalSet = EMPTY
    in_hand: dict[int, Job] = field(default_factory=dict)
    """Also those that wait to be tried again."""
    done: int = 0
    failed: int = 0
    undone: int = 0
    """Not to be done by this pack."""

    def validate(self) -> None:
        """Raise AssertionError when a job is in no place or in two."""
        parts = (len(self.pending), len(self.in_hand), self.done, self.failed, self.undone)
        assert len(self.seen) == sum(parts), f"{len(self.seen)} jobs seen, {parts} accounted for"
        assert not any(n in self.pending for n in self.in_hand), "pending and in hand"


class TaskAccount:
    """The jobs of one task."""

    def __init__(self, work: TaskWork, request: JobRequest, whole: Space, now: float) -> None:
        self.task_id = work.task_id
        self.spec = work.spec
        self.ask(request, whole)
        self.epochs: dict[int, EpochAccount] = {}
        self.slices: dict[int, JobSlice] = {}
        """What jobs have to do, by number, of a task that was cut into jobs."""
        self.again: dict[frozenset[int], deque[Job]] = {}
        """Jobs to be tried again, by the ranks that they have failed on."""
        self.cloning: dict[Job, None] = {}
        """Jobs in hand that may have a further clone, in order."""
        self.revoked: set[int] = set()
        self.runs = 0
        """Tickets that agents have not answered for."""
        self.done = 0
        self.service = 0.0
        """Node-seconds given to it, for fairness between tasks; of running jobs those they are thought to take."""
        self.charged = 0.0
        """The part of it that is only thought."""
        self.error: str | None = None
        self.ending = False
        self.ended_by: set[int] = set()
        self._prior = None if work.event_seconds is None else work.event_seconds / request.cores
        self._timed = 0
        self._mean_s = 0.0
        self._recent, self._recent_since, self._rate = 0, now, 0.0

    def ask(self, request: JobRequest, whole: Space) -> None:
        """What its jobs ask for from now on; those in hand of nodes keep what they have."""
        self.request = request
        self.spec = replace(self.spec, job=request)
        self.space = Space.of(request)
        self.share = self.space.share_of(whole)
        self.at_once = self.space.times_in(whole)
        """How many run on a node at the same time."""

    @property
    def wall_s(self) -> float | None:
        """Seconds a job is thought to take."""
        return self._mean_s if self._timed else self._prior

    @property
    def short(self) -> bool:
        """Whether its jobs are worth sending before there is room for them."""
        return self.wall_s is not None and self.wall_s <= COVER_S

    @property
    def load_s(self) -> float:
        """Seconds of a whole node that a short job takes."""
        return max((self.wall_s or 0.0) / self.at_once, 1.0 / _STARTS_PER_S)

    @property
    def charge_s(self) -> float:
        """Node-seconds that a job is thought to take."""
        return (self.request.walltime_s if self.wall_s is None else self.wall_s) * self.share

    @property
    def waiting(self) -> int:
        """Jobs that no node has."""
        return sum(len(e.pending) for e in self.epochs.values()) + sum(map(len, self.again.values()))

    @property
    def has_waiting(self) -> bool:
        """Whether there are such; cheaper than counting them."""
        return any(e.pending for e in self.epochs.values()) or any(self.again.values())

    def charge(self, seconds: float) -> None:
        """A job of it begins, thought to take so many node-seconds."""
        self.service += seconds
        self.charged += seconds

    def settle(self, charged: float, used: float) -> None:
        """A job that was charged so much has ended, and has used so much."""
        self.charged -= charged
        self.service += used - charged

    def add(self, events: Iterable[LeasedEvents]) -> None:
        """Take on jobs; those that were seen under the same epoch before are not taken twice."""
        for leased in events:
            if leased.epoch in self.revoked:
                continue
            epoch = self.epochs.setdefault(leased.epoch, EpochAccount())
            new = leased.events - epoch.seen
            epoch.seen |= new
            epoch.pending |= new
            self.slices.update((s.job, s) for s in leased.slices if s.job in new)

    def can_serve(self, tolerates: Callable[[frozenset[int]], bool]) -> bool:
        """Whether there is a job for a node; ``tolerates`` tells whether it may be tried again there."""
        return any(e.pending for e in self.epochs.values()) or any(
            jobs and tolerates(avoid) for avoid, jobs in self.again.items()
        )

    def take(self, count: int, tolerates: Callable[[frozenset[int]], bool]) -> list[Job]:
        """Up to ``count`` jobs for a node, those first that are tried again."""
        jobs: list[Job] = []
        for avoid in [a for a in self.again if tolerates(a)]:
            queue = self.again[avoid]
            while queue and len(jobs) < count:
                jobs.append(queue.popleft())
            if not queue:
                del self.again[avoid]
        for number, epoch in self.epochs.items():
            if len(jobs) < count:
                taken, epoch.pending = epoch.pending.take(count - len(jobs))
                new = [Job(self, number, n) for r in taken.ranges() for n in range(r.first, r.last)]
                epoch.in_hand.update((j.number, j) for j in new)
                jobs += new
        return jobs

    def try_again(self, job: Job) -> None:
        """A job waits for its next run."""
        self.again.setdefault(job.avoid, deque()).append(job)

    def give_up(self) -> None:
        """What waits stays undone."""
        for epoch in self.epochs.values():
            epoch.undone += len(epoch.pending)
            epoch.pending = EMPTY
        for queue in self.again.values():
            for job in queue:
                self.leave(job)
        self.again.clear()
        self.cloning.clear()

    def leave(self, job: Job) -> None:
        """A job in hand stays undone."""
        self._close(job).undone += 1

    def fail(self, job: Job) -> None:
        """A job in hand has failed for good."""
        self._close(job).failed += 1

    def finish(self, job: Job, wall_s: float) -> None:
        """A job in hand is done and recorded."""
        self._close(job).done += 1
        self.done += 1
        self._recent += 1
        self._timed += 1
        self._mean_s += (wall_s - self._mean_s) / min(self._timed, _TIME_MEMORY)

    def revoke(self, epochs: Iterable[int]) -> None:
        """Drop all that is not done of these epochs."""
        for number in epochs:
            self.revoked.add(number)
            if epoch := self.epochs.pop(number, None):
                for job in epoch.in_hand.values():
                    job.over = True
        for avoid, queue in list(self.again.items()):
            self.again[avoid] = deque(j for j in queue if not j.over)
            if not self.again[avoid]:
                del self.again[avoid]
        self.cloning = {j: None for j in self.cloning if not j.over}

    def rate(self, now: float) -> float:
        """Jobs finished a second, recently; restarts its window."""
        elapsed = now - self._recent_since
        if elapsed >= 0.5:
            weight = min(1.0, elapsed / _RATE_MEMORY_S)
            self._rate += weight * (self._recent / elapsed - self._rate)
            self._recent, self._recent_since = 0, now
        return self._rate

    def _close(self, job: Job) -> EpochAccount:
        job.over = True
        self.cloning.pop(job, None)
        epoch = self.epochs[job.epoch]
        del epoch.in_hand[job.number]
        return epoch


@dataclass(frozen=True, slots=True)
class Run:
    """A ticket."""

    job: Job
    held: Space | None
    """What it is thought to hold of the node until it ends; None for a short one, which passes through."""
    load_s: float
    until: float
    """When it has ended at latest, if it began when it was given."""
    charge_s: float


class NodeAccount:
    """One node, and what it was given."""

    def __init__(self, rank: int, whole: Space) -> None:
        self.rank = rank
        self.whole = whole
        self.room = whole
        """What no long job holds."""
        self.load_s = 0.0
        """Short jobs that it has, in seconds of the whole node."""
        self.runs: dict[int, Run] = {}
        self.knows: set[int] = set()
        """Tasks that it was told of."""
        self.loads: tuple[JobLoad, ...] = ()
        self.ready = False
        self.faults = 0
        """Runs in a row that failed by the node's fault."""
        self.broken: str | None = None
        """Why it gets no more jobs, if that is its fault."""
        self.closed = False
        """It is to end, or has ended."""

    @property
    def out(self) -> bool:
        """Whether it gets no more jobs."""
        return self.closed or self.broken is not None

    @property
    def usable(self) -> bool:
        """Whether it takes jobs now."""
        return self.ready and not self.out

    def fits(self, task: TaskAccount) -> int:
        """How many jobs of a task it can be given now."""
        now = task.space.times_in(self.room)
        if not now or not task.short:
            return now
        bound = (COVER_S + (task.wall_s or 0.0)) * now / task.at_once
        return max(0, math.ceil((bound - self.load_s) / task.load_s))

    def give(self, ticket: int, run: Run) -> None:
        """It has been given a job."""
        self.runs[ticket] = run
        self.load_s += run.load_s
        if run.held is not None:
            self.room -= run.held

    def settle(self, ticket: int) -> Run | None:
        """It has answered for a job."""
        run = self.runs.pop(ticket, None)
        if run is not None:
            self.load_s = self.load_s - run.load_s if self.runs else 0.0
            if run.held is not None:
                self.room += run.held
        return run

    def hold_all(self) -> None:
        """Its short jobs turn out not to be short: count what they hold."""
        for ticket, run in list(self.runs.items()):
            if run.held is None:
                self.settle(ticket)
                space = run.job.task.space
                self.give(ticket, Run(run.job, space, 0.0, run.until, run.charge_s))
