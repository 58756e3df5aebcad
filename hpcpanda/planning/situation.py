"""Where things are, as the planner sees them: tasks, allocations and their packs, backfill windows, limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import TaskState
from hpcpanda.packing.forecast import Forecast
from hpcpanda.packing.windows import BackfillWindow

PackKind = Literal["work", "mpi-job", "merge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task as the planner sees it."""

    task_id: int
    state: TaskState = TaskState.RUNNING
    job: JobRequest | None = None
    """What each job asks for; None for a task of events."""
    ready: int = 0
    """Events, or jobs, here that no pack works on and whose inputs are in place."""
    staging: bool = False
    """Inputs of further events, or jobs, that are here are not in place yet."""
    event_seconds: float | None = None
    """Core-seconds of an event or job, as measured or said."""
    job_seconds: float | None = None
    """Predicted walltime of a job at the stated risk: how many are planned for a pack. Whether one may start there is
    decided by its time limit alone."""
    deadline: float | None = None
    """To be finished by, on the clock of ``Situation.now``; None for none."""
    not_before: float = 0.0
    priority: int = 0
    mergeable: bool = False
    """There is something to merge now: the rest of a settled task, or enough for one of several files of a task that
    goes on."""
    merged: bool = False
    fault: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartView:
    """A task in a pack, as far as it is not over."""

    task_id: int
    of_jobs: bool = False
    backlog_s: float | None = None
    """Work not begun, in seconds of the cores that it could have; None while unknown, or while there are unread
    messages."""
    waiting: int = 0
    """Events, or jobs, not begun."""
    held: int = 0
    """Events, or jobs, that the pack was given and that are not finished, by this edge's own accounts: known at any
    time, whatever messages are unread."""
    idle: bool = False
    """It has said that it has nothing to do, knowing all messages."""
    begun: float | None = None
    """When it was first said to run, on the clock of ``Situation.now``; None when that is not known."""
    since: float | None = None
    """When it was first said to have finished something; None when it has not, or when that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackView:
    """A pack that has not ended."""

    pack_id: str
    kind: PackKind
    nodes: int
    parts: tuple[PartView, ...] = ()
    past: frozenset[int] = frozenset()
    """Tasks that it had and must not be given again."""
    cores: int = 0
    """As reported; 0 while it starts."""
    job_cores: int | None = None
    """Cores that jobs in it hold or wait for; None while unknown, or while there are unread messages."""
    draining: bool = False
    """It was told to end."""

    def part(self, task_id: int) -> PartView | None:
        """The task in it."""
        return next((p for p in self.parts if p.task_id == task_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationView:
    """An allocation that has not ended."""

    allocation_id: str
    nodes: int
    packs: tuple[PackView, ...]
    accepts: bool
    """It can be given more: it is not draining and not ending."""
    running: bool = False
    in_window: bool = False
    """It was asked for to fill a backfill window."""
    seconds_left: float
    """Until it stops working; the whole of it while it is queued."""
    asked: float | None = None
    """When it was asked for, on the clock of ``Situation.now``; None when that is not known."""
    since: float | None = None
    """When its run began; None while it is queued, or when that is not known."""
    lost_nodes: int = 0
    """Nodes that cannot be used any more; they count against the limits all the same."""

    @property
    def usable_nodes(self) -> int:
        """Nodes for packs."""
        return self.nodes - self.lost_nodes

    @property
    def free_nodes(self) -> int:
        """Nodes without a pack."""
        return max(0, self.usable_nodes - sum(p.nodes for p in self.packs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything a plan depends on."""

    site: Site
    now: float
    tasks: tuple[TaskView, ...] = ()
    allocations: tuple[AllocationView, ...] = ()
    windows: tuple[BackfillWindow, ...] | None = None
    """Nodes free now, as the batch system tells; None when nothing is known."""
    windows_seen: float | None = None
    """When the batch system told of the windows; None when that is not known."""
    windows_not_before: float = 0.0
    """No window is asked for before: requests for windows did not start lately."""
    forecast: Forecast = field(default_factory=Forecast)
    """How allocations fare here, as learnt."""
    submit_not_before: float = 0.0
    """Nothing is submitted before: the batch system refused lately."""
    draining: bool = False
