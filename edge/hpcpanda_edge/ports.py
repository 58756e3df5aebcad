"""What the edge needs of the world outside: a dispatcher and a batch system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from hpcpanda.domain.exchange import Capacity, EdgeInfo, EdgeRegistration, Grants, SyncReply, SyncRequest


class DispatcherPort(Protocol):
    """The dispatcher; :class:`hpcpanda.client.sdk.AsyncDispatcherClient` is one.

    Every method raises :class:`~hpcpanda.domain.errors.Unavailable` when there is no answer.
    """

    async def register_edge(self, name: str, registration: EdgeRegistration) -> EdgeInfo:
        """Introduce this edge. Raises EdgeNameTaken when another living instance has the name."""
        ...

    async def acquire(self, name: str, capacity: Capacity) -> Grants:
        """Ask for work."""
        ...

    async def sync(self, name: str, request: SyncRequest) -> SyncReply:
        """Say everything there is to say."""
        ...


class JobState(StrEnum):
    """Where the batch system has an allocation."""

    QUEUED = "queued"
    RUNNING = "running"
    GONE = "gone"
    """Certainly no process of it is left, and none will start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationJob:
    """An allocation as the batch system is asked for it."""

    allocation_id: str
    nodes: int
    walltime_s: float
    command: tuple[str, ...]
    folder: Path
    """Its folder in the spool; one of the words of ``command``."""
    avoid: tuple[str, ...] = ()
    """Nodes that it should not get, where the batch system can be told so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """An allocation that the batch system was given."""

    allocation_id: str
    native_id: str
    folder: Path


class SchedulerPort(Protocol):
    """A batch system. Calls block; the edge makes them in a thread, with a time-out."""

    def submit(self, job: AllocationJob) -> str:
        """Ask for an allocation; gives the batch system's name of it.

        Raises:
            SchedulerFailed: refused, or the answer was lost: it may have been accepted all the same.
        """
        ...

    def states(self, jobs: Sequence[Submitted]) -> dict[str, JobState]:
        """States by allocation id; what is not certain is left out.

        Raises:
            SchedulerFailed: the batch system does not answer.
        """
        ...

    def cancel(self, job: Submitted) -> None:
        """Take an allocation out of the batch system, running or not.

        Raises:
            SchedulerFailed: the batch system does not answer.
        """
        ...

    def find(self, allocation_id: str, folder: Path) -> str | None:
        """The native id of an allocation whose submission was not answered; None when none is found.

        Raises:
            SchedulerFailed: the batch system does not answer.
        """
        ...
