"""Messages between an edge and its allocations, through the spool folder. Format 1.

``plan.json`` is written before the allocation is submitted; ``inbox/NNNNNN.json`` are messages from
the edge, in order; ``status.json`` is the head's answer, replaced atomically. All files are written
under a temporary name, fsynced and renamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.site import Site
from hpcpanda.domain.splitting import JobSlice
from hpcpanda.domain.task import TaskSpec

_STRICT: dict[str, object] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedEvents:
    """Events under one epoch of the dispatcher's lease."""

    __pydantic_config__: ClassVar = _STRICT

    epoch: int
    events: IntervalSet
    slices: tuple[JobSlice, ...] = ()
    """What the jobs have to do, of a task that was cut into jobs; maybe of others, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWork:
    """Events, or jobs, of one task for a pack."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    spec: TaskSpec
    events: tuple[LeasedEvents, ...]
    """Numbers of events, or of jobs when the task has jobs."""
    event_seconds: float | None = None
    """Core-seconds an event, or a job, if known."""

    @property
    def of_jobs(self) -> bool:
        """Whether it consists of jobs."""
        return self.spec.jobs is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPack:
    """A pack that runs jobs of any number of tasks, and streams events of one task at a time to the cores that are free."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    nodes: int
    work: tuple[TaskWork, ...]
    """One entry a task; at most one of events."""
    kind: Literal["work"] = "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class MpiJobPack:
    """A pack that is one MPI job, on nodes of its own."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    nodes: int
    work: tuple[TaskWork]
    """A single job of the task, under one epoch."""
    kind: Literal["mpi-job"] = "mpi-job"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedEvents:
    """The part of one journal that belongs into the output."""

    __pydantic_config__: ClassVar = _STRICT

    journal: str
    """Path of the journal file."""
    epoch: int
    events: IntervalSet


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePack:
    """A pack that merges a task's accepted segments at this site."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    task_id: int
    spec: TaskSpec
    accepted: tuple[AcceptedEvents, ...]
    output: str
    """Path of the merged file; of several, that into which their numbers are put."""
    rest: bool = True
    """Of a task that has several files: what does not fill one is written, too."""
    failed: IntervalSet = EMPTY
    """Events set aside for good, for the manifest."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Free facts for the manifest: site, dispatcher, versions."""
    nodes: int = 1
    """0: it has none of its own, but runs on one core of the head's, beside other packs; with low priority while the task
    goes on."""
    kind: Literal["merge"] = "merge"


Pack = WorkPack | MpiJobPack | MergePack


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationPlan:
    """What an allocation starts with."""

    __pydantic_config__: ClassVar = _STRICT

    allocation_id: str
    site: Site
    nodes: int
    walltime_s: float
    packs: tuple[Pack, ...]
    format: Literal[1] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp:
    """More events, or jobs, of a task that the pack has."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    task_id: int
    events: tuple[LeasedEvents, ...]
    job: JobRequest | None = None
    """What jobs that have not begun ask for from now on; None: as before."""
    kind: Literal["top-up"] = "top-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddWork:
    """A task that the pack has not had yet. A second task of events begins when the first has ended."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    work: TaskWork
    kind: Literal["add-work"] = "add-work"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndWork:
    """Be done with a task: its running ranges and jobs have ``grace_s`` to finish, the rest stays undone."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    task_id: int
    grace_s: float
    kind: Literal["end-work"] = "end-work"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPack:
    """A further pack for free nodes of the allocation."""

    __pydantic_config__: ClassVar = _STRICT

    pack: Pack
    kind: Literal["start-pack"] = "start-pack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """Stop working under these epochs of a task; what is journalled of them stays where it is."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    task_id: int
    epochs: tuple[int, ...]
    kind: Literal["revoke"] = "revoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Start no new range and no new job, finish what fits into ``grace_s``, flush, end."""

    __pydantic_config__: ClassVar = _STRICT

    grace_s: float
    pack_id: str | None = None
    """Only this pack; without it all packs, and the allocation with them."""
    kind: Literal["drain"] = "drain"


ToPack = TopUp | AddWork | EndWork | Revoke | Drain
"""What the head passes on to a running pack."""
InboxMessage = ToPack | StartPack


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProgress:
    """How a pack is doing with one of its tasks."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    state: Literal["running", "ended", "failed"] = "running"
    """``failed``: the task cannot be run here at all."""
    done: int = 0
    """Events, or jobs, that this start of the pack has finished."""
    per_second: float = 0.0
    """Recent rate of them."""
    event_seconds: float | None = None
    """Core-seconds that one costs."""
    cores: int = 0
    """Cores that jobs of it hold; for a task of events, those that jobs leave to it."""
    cores_busy: float = 0.0
    """Mean number of cores at work on it since the last status."""
    waiting: int = 0
    """Events, or jobs, not begun."""
    backlog_s: float = 0.0
    """Those in seconds of the cores that it could have."""
    idle: bool = False
    """Nothing to hand out and nothing in hand."""
    error: str | None = None
    """Why it failed: the task's fault at this site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedFile:
    """A file that a merge pack made."""

    __pydantic_config__: ClassVar = _STRICT

    path: str
    manifest: str
    digest: str
    size: int
    """Bytes."""
    events: IntervalSet


@dataclass(frozen=True, slots=True, kw_only=True)
class PackStatus:
    """How a pack is doing."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    state: Literal["starting", "running", "ended"]
    incarnation: int = 0
    """How often the pack was started again after it died."""
    cores: int = 0
    cores_busy: float = 0.0
    """Mean number of cores at work since the last status."""
    occupancy: tuple[float, ...] = ()
    """The same for each core, 0..1: all cores of the first node, then of the next."""
    tasks: tuple[TaskProgress, ...] = ()
    idle: bool = False
    """Nothing to hand out and nothing in hand, of any task."""
    job_cores: int = 0
    """Cores that jobs hold or wait for."""
    complaints: tuple[str, ...] = ()
    """What is wrong by no fault of a task: nodes that get no jobs, and why; what of the pack was killed."""
    nodes: int | None = None
    """Nodes that the head has given it; fewer than planned where some were lost."""
    told_to_end: bool = False
    """The batch system has signalled the end to its ranks."""
    progress: float = 0.0
    """Share of its work that a merge pack has done, 0..1."""
    error: str | None = None
    """Why the pack had to end."""
    died: str | None = None
    """How its processes ended, where that was not of their own accord: killed, lost with a node, or crashed. ``error`` then
    says nothing about its tasks."""
    files: tuple[MergedFile, ...] = ()
    """What a merge pack made."""

    @property
    def done(self) -> int:
        """Events and jobs that this start of the pack has finished."""
        return sum(t.done for t in self.tasks)

    @property
    def ended_by_itself(self) -> bool:
        """Whether it has ended, and was neither killed nor lost."""
        return self.state == "ended" and self.died is None

    def task(self, task_id: int) -> TaskProgress | None:
        """How it is doing with a task."""
        return next((t for t in self.tasks if t.task_id == task_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationStatus:
    """How the allocation is doing, as its head last wrote."""

    __pydantic_config__: ClassVar = _STRICT

    allocation_id: str
    state: Literal["starting", "running", "draining", "ended"]
    head_pid: int
    host: str
    written: float
    """Unix seconds."""
    inbox_read: int
    """Number of the last inbox message acted on."""
    packs: tuple[PackStatus, ...]
    life: int = 0
    """How often the head has begun before: more than 0 after a requeue of its batch job."""
    nodes: int | None = None
    """Nodes that can be used, where some are known to be lost."""
    busy_s: float = 0.0
    """Core-seconds that cores were at work, in all lives of the head, whatever came of it."""
