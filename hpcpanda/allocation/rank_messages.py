"""What the ranks of a pack and its director (rank 0) say to each other over MPI."""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.allocation import messages as events
from hpcpanda.allocation.job_messages import JobToAgent, JobToCoordinator
from hpcpanda.allocation.plan import TaskWork


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginEvents:
    """Set the payload of a task up, and run its events on the cores that are free."""

    work: TaskWork
    """Without events: those come in chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToEvents:
    """For the agent that runs the events of a task."""

    task_id: int
    message: events.ToAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class ToJobs:
    """For the agent that runs jobs."""

    message: JobToAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishAll:
    """Start nothing new, end within ``grace_s``, flush, say bye."""

    grace_s: float


ToRank = BeginEvents | ToEvents | ToJobs | FinishAll


@dataclass(frozen=True, slots=True, kw_only=True)
class FromEvents:
    """From the agent that runs the events of a task."""

    task_id: int
    message: events.ToCoordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class FromJobs:
    """From the agent that runs jobs."""

    message: JobToCoordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUse:
    """How busy the cores of the node were since it was last said."""

    events: tuple[float, ...]
    """Share of the time that each core ran events, 0..1."""
    jobs: tuple[float, ...]
    """The same for jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldToEnd:
    """The batch system has signalled the end to this rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankBye:
    """Everything on this rank has ended."""


ToDirector = FromEvents | FromJobs | NodeUse | ToldToEnd | RankBye
