"""A task's account: how many events stand where, and the transitions of its state. Pure.

The events themselves are in the leases and the ready ranges; the account is the one row that a commit
has to touch besides its lease.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.states import TaskEvent, TaskState, next_task_state

RATE_SECONDS = 30.0
"""Memory of the recent rate of finished events."""


@dataclass(slots=True, kw_only=True)
class Account:
    """Counts of one task; of a task that is not final, ready + leased + done + failed == total."""

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
        """Whether every event is done or failed."""
        return self.done + self.failed == self.total

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
        self.ready += events
        self.updated = now

    def recorded(self, *, done: int, failed: int, core_seconds: float, now: float) -> None:
        """Count leased events as finished."""
        self.leased -= done + failed
        self.done += done
        self.failed += failed
        self.core_seconds += core_seconds
        self.rate = self._decayed(now) + done / RATE_SECONDS
        self.rate_at = self.updated = now

    def take(self, event: TaskEvent, *, now: float, message: str | None = None) -> None:
        """Change state; on a final one nothing is ready or leased any more.

        Raises:
            IllegalTransition: the event makes no sense in this state.
        """
        self.state = next_task_state(self.state, event)
        self.message = message
        self.updated = now
        if self.state.final:
            self.ready = self.leased = 0
