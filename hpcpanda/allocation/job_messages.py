"""What node agents and the job queue (rank 0) say to each other of jobs.

Every run of a job has a *ticket*, a number that is unique in the life of the pack. An agent answers for each ticket
exactly once, by a :class:`JobsReport`, or for all at once by :class:`JobsBye`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.domain import splitting
from hpcpanda.domain.failures import FailureFacts
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.task import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTask:
    """A task of which the agent will get jobs."""

    task_id: int
    spec: TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSlice:
    """Jobs ``[first, last)`` of a task, to be run once each; their tickets begin with ``ticket``."""

    ticket: int
    task_id: int
    epoch: int
    first: int
    last: int
    attempt: int = 1
    """1 for the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBatch:
    """Jobs for an agent: those that it has room for, and a few short ones to come after them."""

    slices: tuple[JobSlice, ...]
    more: bool
    """Whether the queue has further jobs waiting."""
    contents: tuple[tuple[int, splitting.JobSlice], ...] = ()
    """What those of them have to do that are of tasks cut into jobs, each with its ticket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordJob:
    """The answer to :class:`AskRecord`: this clone has won, record it."""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun:
    """Another clone has won: end this one and drop it."""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetJobAside:
    """Journal this job as failed for good."""

    task_id: int
    epoch: int
    event: FailedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetJobs:
    """End the runs of these epochs of a task at once and drop them."""

    task_id: int
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndJobTask:
    """Be done with a task: its runs have ``grace_s`` to end, what has not begun goes back."""

    task_id: int
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishJobs:
    """Start no job any more; runs have ``grace_s`` to end; then flush and say bye."""

    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsReady:
    """The agent can run jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUnfit:
    """In place of :class:`JobsReady`: the node is not what the site file says, and runs no job."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """A run that failed."""

    ticket: int
    error: str
    wall_s: float = 0.0
    node_at_fault: bool = False
    runner_lost: bool = False
    """The node is at fault only as long as the same does not happen to this job again and again."""
    facts: FailureFacts | None = None
    """What else is known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLoad:
    """What jobs of a task hold of a node."""

    task_id: int
    cores: int
    """Held now."""
    busy: float
    """Held in the mean since the last time it was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsReport:
    """What has become of tickets since the last report."""

    done: tuple[tuple[int, float], ...] = ()
    """Ticket and wall seconds of what is recorded."""
    failed: tuple[FailedRun, ...] = ()
    back: tuple[int, ...] = ()
    """Not run, or ended before it was through, for no fault of the job."""
    stale: tuple[int, ...] = ()
    """Not begun, since what is before them takes longer than thought."""
    late: tuple[int, ...] = ()
    """Not begun, since the time left is shorter than their walltime."""
    loads: tuple[JobLoad, ...] | None = None
    """All that jobs hold; None: as told before."""
    stopped: bool = False
    """The agent takes no more jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRecord:
    """A clone has succeeded: is it the first?"""

    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTaskEnded:
    """Nothing of the task is in hand, and what was recorded of it is durable."""

    task_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsBye:
    """No job runs, and the files are closed; ``error`` says why, if the agent had to stop."""

    error: str | None = None
    again: bool = False
    """Whether another start of the pack may go better."""


JobToAgent = JobTask | JobBatch | RecordJob | EndRun | SetJobAside | ForgetJobs | EndJobTask | FinishJobs
JobToCoordinator = JobsReady | NodeUnfit | JobsReport | AskRecord | JobTaskEnded | JobsBye
