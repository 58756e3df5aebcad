"""A task's account: how many events stand where, and the transitions of its state. Pure.

The events themselves are in the leases and the ready ranges; the account is the one row that a commit
has to touch besides its lease.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.ledger import EventLease
from hpcpanda.domain.states import RESUMES, TaskEvent, TaskState, next_task_state

RATE_SECONDS = 30.0
"""Memory of the recent rate of finished events."""


@dataclass(slots=True, kw_only=True)
class Account:
    """Counts of one task; of a task that is not final, ready + held + leased + done + failed == total."""

    task_id: int
    owner: str
    name: str
    state: TaskState
    priority: int
    total: int
    ready: int
    leased: int = 0
    done: int = 0
    failed: int = 0
    merged: int = 0
    """Events in recorded outputs."""
    max_failed: int
    next_epoch: int = 1
    core_seconds: float = 0.0
    """What all ``done`` events took."""
    guess: float | None
    """The user's guess of core-seconds an event."""
    rate: float = 0.0
    """Exponentially decaying mean of finished events a second, as of ``rate_at``."""
    rate_at: float
    created: float
    updated: float
    message: str | None = None
    job: JobRequest | None = None
    """What each job asks for; None for a task of events."""
    in_container: bool = False
    """Its commands run in a container."""
    lane_id: int = 1
    """The lane in which it waits; the first is nobody's."""
    served: float = 0.0
    """When work of it was last leased, or when it was submitted."""
    deadline: float | None = None
    """Unix seconds."""
    dataset_id: int | None = None
    """The dataset whose entries are its events."""
    writes_id: int | None = None
    """The dataset to which its outputs are added."""
    is_split: bool = False
    """Its jobs are slices of events or files, of which edges are told with every lease."""
    scouts: int = 0
    """So many jobs are run alone first, and it is not decided yet what they have shown; there are no others as yet."""
    held: int = 0
    """Ready events that nobody is given: the task is paused. They are not among ``ready``."""
    before: TaskState | None = None
    """Where a paused task was when it was paused."""
    tries: int = 1
    """How often its work was begun: each time after the first, what finishes goes into other files."""
    first_epoch: int = 1
    """Leases with lower epochs are of an earlier try: nothing of them is merged any more."""
    more_memory: float = 1.0
    """So many times the memory that its user asked for is asked for now."""
    more_time: float = 1.0
    """The same of the time that one job, or range, may take."""
    raised: int = 1
    """Leases with lower epochs were granted before more memory or time was last asked for."""
    growing: bool = False
    """The dataset that it reads is open: more events may come."""
    fenced: bool = False
    """Some sites were taken off it: see the table ``fences``."""

    @property
    def unit(self) -> str:
        """What it consists of, in words: ``event`` or ``job``."""
        return "event" if self.job is None else "job"

    @property
    def event_seconds(self) -> float | None:
        """Core-seconds an event costs, as measured; None before anything was measured."""
        return self.core_seconds / self.done if self.done and self.core_seconds > 0 else None

    @property
    def settled(self) -> bool:
        """Whether every event is done or failed, and no more come."""
        return not self.growing and self.done + self.failed == self.total

    def rate_now(self, now: float) -> float:
        """Recent rate of finished events, per second; a young task has only its own age to judge by."""
        age = max(1.0, now - self.created)
        return self._decayed(now) / (1.0 - math.exp(-age / RATE_SECONDS))

    def _decayed(self, now: float) -> float:
        return self.rate * math.exp(-max(0.0, now - self.rate_at) / RATE_SECONDS)

    def granted(self, events: int, *, now: float) -> int:
        """Count ready events as leased; gives the epoch of their lease."""
        self.state = next_task_state(self.state, TaskEvent.LEASE)
        self.ready -= events
        self.leased += events
        self.updated = self.served = now
        epoch = self.next_epoch
        self.next_epoch += 1
        return epoch

    def returned(self, events: int, *, now: float) -> None:
        """Count leased events as ready."""
        self.leased -= events
        self._put_back(events)
        self.updated = now

    def recorded(self, *, done: int, failed: int, core_seconds: float, now: float) -> None:
        """Count leased events as finished."""
        self.leased -= done + failed
        self.done += done
        self.failed += failed
        self.core_seconds += core_seconds
        self.rate = self._decayed(now) + done / RATE_SECONDS
        self.rate_at = self.updated = now

    def pause(self, *, now: float, message: str) -> None:
        """Lease nothing more.

        Raises:
            IllegalTransition: it has ended, or has nothing that could be leased.
        """
        before = self.state
        self.take(TaskEvent.PAUSE, now=now, message=message)
        self.before = before
        self.ready, self.held = 0, self.ready

    def resume(self, *, now: float) -> None:
        """Go on as before the pause.

        Raises:
            IllegalTransition: it is not paused.
        """
        before = self.before or TaskState.RUNNING
        self.take(RESUMES[before], now=now)
        self.ready, self.held = self.ready + self.held, 0

    def undone(self, events: int, *, now: float) -> None:
        """Count finished events, of which nothing is in an output, as ready again; what one costs stays as measured."""
        if self.done:
            self.core_seconds *= (self.done - events) / self.done
        self.done -= events
        self._put_back(events)
        self.updated = now

    def retry(self, again: int, *, now: float) -> None:
        """Begin another try of a task that has ended, of so many of its events; the others are in outputs.

        Raises:
            IllegalTransition: it did not end in a way that can be tried again.
        """
        self.take(TaskEvent.RETRY, now=now)
        kept = self.total - again
        if self.done:
            self.core_seconds *= kept / self.done
        self.ready, self.done, self.merged, self.failed = again, kept, kept, 0
        self.served = now
        self.fenced = False
        self.begin_again()

    def begin_again(self) -> None:
        """Whatever is leased from now on is of another try."""
        self.tries += 1
        self.first_epoch = self.next_epoch

    def remembered(self, edge: str, events: IntervalSet, *, now: float) -> EventLease:
        """A lease that stands for those that were forgotten, of events that are in outputs of an edge."""
        epoch = self.next_epoch
        self.next_epoch += 1
        return EventLease(
            epoch=epoch, holder=edge, granted=events, outstanding=EMPTY, committed=events, expires=now
        )

    def grew(self, events: int, *, now: float) -> None:
        """Count events that have come behind all others as ready."""
        if self.state is TaskState.PENDING:
            self.take(TaskEvent.GROW, now=now)
        elif self.before is TaskState.PENDING:
            self.before = TaskState.READY
        self.total += events
        self._put_back(events)
        self.updated = now

    def _put_back(self, events: int) -> None:
        if self.state is TaskState.PAUSED:
            self.held += events
        else:
            self.ready += events

    def take(self, event: TaskEvent, *, now: float, message: str | None = None) -> None:
        """Change state; on a final one nothing is ready or leased any more.

        Raises:
            IllegalTransition: the event makes no sense in this state.
        """
        self.state = next_task_state(self.state, event)
        self.message = message
        self.updated = now
        if self.state is not TaskState.PAUSED:
            self.before = None
        if self.state.final:
            self.ready = self.held = self.leased = 0
