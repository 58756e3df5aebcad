"""The director of a pack, on rank 0: the events of one task at a time, the jobs of any number, and when all has ended.

A state machine without I/O: messages in, messages out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hpcpanda.allocation import coordinator
from hpcpanda.allocation.coordinator import Coordinator
from hpcpanda.allocation.job_hand_out import JobSend
from hpcpanda.allocation.job_queue import JobQueue
from hpcpanda.allocation.plan import (
    AddWork,
    Drain,
    EndWork,
    PackStatus,
    Revoke,
    TaskProgress,
    TaskWork,
    ToPack,
    TopUp,
    WorkPack,
)
from hpcpanda.allocation.rank_messages import (
    BeginEvents,
    FinishAll,
    FromEvents,
    FromJobs,
    NodeUse,
    RankBye,
    ToDirector,
    ToEvents,
    ToJobs,
    ToldToEnd,
    ToRank,
)
from hpcpanda.domain.room import Room

_STOP_GRACE_S = 1.0
"""What the other ranks have left when one cannot go on."""


@dataclass(frozen=True, slots=True)
class Send:
    """A message for a rank."""

    rank: int
    message: ToRank


class Director:
    """Rank 0's account of a pack."""

    def __init__(self, pack: WorkPack, *, incarnation: int, node: Room, deadline: float) -> None:
        """``node``: what a node has; ``deadline``: when all must have ended, on the clock of every ``now``."""
        self._pack = pack
        self._incarnation = incarnation
        self._ranks = pack.nodes
        self._cores = node.cores
        self._events: Coordinator | None = None
        self._next_events: deque[TaskWork] = deque()
        self._past: dict[int, TaskProgress] = {}
        self._setbacks: tuple[str, ...] = ()
        self._jobs = JobQueue(ranks=pack.nodes, node=node, deadline=deadline)
        self._use: dict[int, NodeUse] = {}
        self._byes: set[int] = set()
        self._draining = False
        self._again = False
        self._told: set[int] = set()
        self._error: str | None = None

    @property
    def ended(self) -> bool:
        """Whether every rank has said bye."""
        return len(self._byes) == self._ranks

    @property
    def _told_to_end(self) -> bool:
        """Whether the batch system wants an end. It says so to all ranks; when one has died its launcher may say so to the
        others, and that is the end of this pack only."""
        return bool(self._told) and len(self._told | self._byes) == self._ranks

    @property
    def idle(self) -> bool:
        """Whether there is nothing to hand out and nothing in hand, of any task; never while it ends to begin again."""
        if self._again:
            return False
        return (self._events is None or self._events.idle) and not self._next_events and self._jobs.idle

    def begin(self, now: float) -> list[Send]:
        """Take the work that the pack was started with."""
        return [s for work in self._pack.work for s in self._add(work, now)]

    def from_head(self, message: ToPack, now: float) -> list[Send]:
        """Act on a message of the head."""
        match message:
            case AddWork():
                return self._add(message.work, now)
            case TopUp():
                return self._top_up(message, now)
            case Revoke():
                return self._revoke(message, now)
            case EndWork():
                return self._end_work(message, now)
            case Drain():
                return self._drain(message.grace_s)

    def from_rank(self, rank: int, message: ToDirector, now: float) -> list[Send]:
        """Act on a message of a rank."""
        match message:
            case FromEvents(task_id=task_id) if self._events is not None and self._events.task_id == task_id:
                sends = self._of_events(self._events.from_agent(rank, message.message))
                return sends + self._after_events(now)
            case FromJobs():
                return _of_jobs(self._jobs.from_agent(rank, message.message, now)) + self._after_jobs()
            case NodeUse():
                self._use[rank] = message
            case ToldToEnd():
                self._told.add(rank)
            case RankBye():
                self._byes.add(rank)
        return []

    def status(self, now: float) -> PackStatus:
        """How the pack is doing; restarts the windows of the rates."""
        of_jobs = self._jobs.progress(now)
        total = self._cores * self._ranks
        use = [self._use.get(rank) for rank in range(self._ranks)]
        events_busy = sum(sum(u.events) for u in use if u is not None)
        occupancy = tuple(
            min(1.0, e + j) for u in use if u is not None for e, j in zip(u.events, u.jobs, strict=True)
        )
        tasks = [*self._past.values(), *of_jobs]
        tasks += [TaskProgress(task_id=w.task_id, waiting=_count(w)) for w in self._next_events]
        if self._events is not None:
            left = max(0, total - sum(t.cores for t in of_jobs))
            tasks.append(self._events.progress(now, cores=left, cores_busy=events_busy))
        return PackStatus(
            pack_id=self._pack.pack_id,
            state="ended" if self.ended and not self._again else "running",
            incarnation=self._incarnation,
            cores=total,
            cores_busy=sum(occupancy),
            occupancy=occupancy,
            tasks=tuple(tasks),
            idle=self.idle,
            job_cores=self._jobs.job_cores,
            complaints=(*self._jobs.complaints, *dict.fromkeys(self._setbacks)),
            told_to_end=self._told_to_end,
            error=self._error,
        )

    # ---- work ----

    def _add(self, work: TaskWork, now: float) -> list[Send]:
        if self._draining or work.task_id in self._past:
            return []
        if work.of_jobs:
            return _of_jobs(self._jobs.add(work, now))
        if self._events is not None and self._events.task_id == work.task_id:
            return self._of_events(self._events.top_up(work.events))
        self._next_events.append(work)
        return self._begin_next(now)

    def _top_up(self, message: TopUp, now: float) -> list[Send]:
        if self._draining:
            return []
        if self._events is not None and self._events.task_id == message.task_id:
            return self._of_events(self._events.top_up(message.events))
        for at, work in enumerate(self._next_events):
            if work.task_id == message.task_id:
                self._next_events[at] = replace(work, events=work.events + message.events)
                return []
        return _of_jobs(self._jobs.top_up(message.task_id, message.events, now, message.job))

    def _revoke(self, message: Revoke, now: float) -> list[Send]:
        if self._events is not None and self._events.task_id == message.task_id:
            return self._of_events(self._events.revoke(message.epochs))
        for at, work in enumerate(self._next_events):
            if work.task_id == message.task_id:
                kept = tuple(e for e in work.events if e.epoch not in message.epochs)
                self._next_events[at] = replace(work, events=kept)
                return []
        return _of_jobs(self._jobs.revoke(message.task_id, message.epochs, now))

    def _end_work(self, message: EndWork, now: float) -> list[Send]:
        if self._events is not None and self._events.task_id == message.task_id:
            return self._of_events(self._events.drain(message.grace_s)) + self._after_events(now)
        for work in list(self._next_events):
            if work.task_id == message.task_id:
                self._next_events.remove(work)
                self._past[work.task_id] = TaskProgress(task_id=work.task_id, state="ended", idle=True)
                return []
        return _of_jobs(self._jobs.end_task(message.task_id, message.grace_s, now))

    def _drain(self, grace_s: float) -> list[Send]:
        self._draining = True
        self._next_events.clear()
        sends: list[Send] = []
        if self._events is not None:
            sends += self._of_events(self._events.drain(grace_s))
        sends += _of_jobs(self._jobs.drain(grace_s))
        finish = FinishAll(grace_s=grace_s)
        return sends + [Send(rank, finish) for rank in range(self._ranks) if rank not in self._byes]

    # ---- one task of events after the other ----

    def _begin_next(self, now: float) -> list[Send]:
        if self._events is not None or not self._next_events or self._draining:
            return []
        work = self._next_events.popleft()
        self._events = Coordinator(work, ranks=self._ranks, cores=self._cores, now=now)
        begin = BeginEvents(work=replace(work, events=()))
        return [Send(rank, begin) for rank in range(self._ranks) if rank not in self._byes]

    def _after_events(self, now: float) -> list[Send]:
        """When all agents of a task of events have ended: go on with the next, or end the pack."""
        events = self._events
        if events is None or not events.ended:
            return []
        self._past[events.task_id] = events.progress(now, cores=0, cores_busy=0.0)
        self._setbacks += events.setbacks
        self._events = None
        if events.trouble is not None:
            self._error = self._error or events.trouble
        elif not events.again or not self._jobs.idle:
            return self._begin_next(now)
        self._again = self._again or events.again
        return [] if self._draining else self._drain(_STOP_GRACE_S)

    def _after_jobs(self) -> list[Send]:
        """When some node cannot run jobs any more, the pack ends."""
        if self._draining or self._jobs.error is None:
            return []
        self._error = self._error or self._jobs.error
        self._again = self._again or self._jobs.again
        return self._drain(_STOP_GRACE_S)

    def _of_events(self, sends: Iterable[coordinator.Send]) -> list[Send]:
        assert self._events is not None
        task_id = self._events.task_id
        return [Send(s.rank, ToEvents(task_id=task_id, message=s.message)) for s in sends]


def _of_jobs(sends: Iterable[JobSend]) -> list[Send]:
    return [Send(s.rank, ToJobs(message=s.message)) for s in sends]


def _count(work: TaskWork) -> int:
    return sum(len(part.events) for part in work.events)
