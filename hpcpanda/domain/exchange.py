"""What dispatcher, edges and clients say to each other: bodies of the REST API under /v1, version 1.

A lease of the dispatcher is named by ``(task_id, epoch)``. Everything an edge reports may be sent
again after a lost answer; the second time changes nothing and is answered alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.failures import NodeQuarantine
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import ERROR_TEXT_LIMIT, FailedEvent
from hpcpanda.domain.requirements import require_tags
from hpcpanda.domain.room import Room
from hpcpanda.domain.scouting import MAX_SCOUTS, JobMeasure
from hpcpanda.domain.site_report import MAX_REASONS, SiteReport, TaskReason
from hpcpanda.domain.splitting import JobSlice
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec, require_priority
from hpcpanda.domain.usage import UsageReport
from hpcpanda.domain.validation import MAX_EVENTS, plain_text, require_between, require_name, require_path

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}

_VERSION = re.compile(r"[\x20-\x7e]{0,128}")
_DIGEST = re.compile(r"[A-Za-z0-9:._-]{1,200}")

MAX_UPDATES = 10_000
"""Most updates of one kind in a sync."""
MAX_EDGES = 1000
"""Most edges in one answer."""
MAX_WITHOUT = 1000
"""Most tasks that a request for work can leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A merged file at a site."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    path: str
    """Absolute path on the site's file system."""
    manifest: str
    """Absolute path of the manifest beside it."""
    events: IntervalSet
    """The events in the file."""
    digest: str
    """``sha256:...`` of the content (not of the file's bytes)."""
    size: int
    """Bytes of the file."""

    def __post_init__(self) -> None:
        require_between("size", self.size, 0, MAX_EVENTS)
        require_path("path", self.path)
        require_path("manifest", self.manifest)
        if not self.path.startswith("/"):
            raise InvalidValue("path", f"{self.path[:140]!r} is not absolute")
        if not _DIGEST.fullmatch(self.digest):
            raise InvalidValue("digest", f"{self.digest[:140]!r} is no digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRegistration:
    """An edge introduces itself. The instance id lives in the edge's state folder, so a restarted edge
    is the same instance and a second edge under the same name is not."""

    __pydantic_config__: ClassVar = _STRICT

    instance: str
    cores: int
    """Cores the site file allows, all nodes together."""
    version: str = ""
    held: tuple[tuple[int, int], ...] | None = None
    """``(task_id, epoch)`` of all leases that the edge knows of, said at its start: any other was granted
    in an answer that never arrived, and its events become ready again. None says nothing."""
    architecture: str | None = None
    """Processor architecture of the site's nodes, as its site file says."""
    tags: tuple[str, ...] = ()
    """What tasks may ask for by name, as its site file says."""

    def __post_init__(self) -> None:
        require_name("instance", self.instance)
        if not _VERSION.fullmatch(self.version):
            raise InvalidValue("version", f"{self.version[:140]!r} is more than a version; leave it out")
        if self.held is not None and len(self.held) > MAX_UPDATES:
            raise InvalidValue("held", f"more than {MAX_UPDATES} leases; leave it out")
        require_between("cores", self.cores, 1, 10**9)
        if self.architecture is not None:
            require_name("architecture", self.architecture)
        require_tags("tags", self.tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeInfo:
    """A registered edge."""

    __pydantic_config__: ClassVar = _STRICT

    name: str
    instance: str
    cores: int
    version: str
    last_seen: float
    """Unix seconds."""
    alive: bool
    lease_seconds: float
    """How long a lease lasts from its grant or renewal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What an edge could run now, if it had the work."""

    __pydantic_config__: ClassVar = _STRICT

    instance: str
    cores: int
    """Cores waiting for work."""
    seconds: float
    """For how long."""
    task_id: int | None = None
    """Only work of this task (an allocation that runs it wants more)."""
    only: Literal["events", "jobs"] | None = None
    """Only tasks of events, or of jobs."""
    room: Room | None = None
    """Largest job that can be taken; without it none is leased."""
    without: tuple[int, ...] = ()
    """Tasks of which nothing is wanted now, at most 1000."""
    above: int | None = None
    """Only tasks of a higher priority than this: what the edge has would make place for them."""
    wait_s: float = 0.0
    """How long the dispatcher may hold the answer back until there is work, 0..30 s."""

    def __post_init__(self) -> None:
        require_between("cores", self.cores, 1, 10**9)
        require_between("seconds", self.seconds, 0.001, 1e8)
        require_between("wait_s", self.wait_s, 0.0, 30.0)
        if self.above is not None:
            require_priority(self.above, "above")
        if len(self.without) > MAX_WITHOUT:
            raise InvalidValue("without", f"more than {MAX_WITHOUT} tasks; leave out those that matter most")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGrant:
    """Events, or jobs, leased to an edge."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    epoch: int
    events: IntervalSet
    spec: TaskSpec
    """What the task is now; it counts in the place of what was told with earlier grants."""
    expires_in_s: float
    event_seconds: float | None = None
    """Measured core-seconds an event, or job, if known."""
    slices: tuple[JobSlice, ...] = ()
    """What each of the jobs has to do, of a task that was cut into jobs."""
    first_epoch: int = 1
    """As of :class:`TaskOrder`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Answer to a request for work; empty when there is none."""

    __pydantic_config__: ClassVar = _STRICT

    leases: tuple[LeaseGrant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseCommit:
    """Events finished under a lease."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    epoch: int
    done: IntervalSet = EMPTY
    failed: tuple[FailedEvent, ...] = ()
    core_seconds: float = 0.0
    """Wall seconds of cores that the ``done`` events took."""
    measured: tuple[JobMeasure, ...] = ()
    """What those of the ``done`` jobs have used that are scouts."""

    def __post_init__(self) -> None:
        require_between("core_seconds", self.core_seconds, 0.0, 1e15)
        if len(self.failed) > MAX_UPDATES:
            raise InvalidValue("failed", f"more than {MAX_UPDATES} in one commit; send several")
        if len(self.measured) > MAX_SCOUTS:
            raise InvalidValue("measured", f"more than {MAX_SCOUTS}; a task has no more scouts")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReturn:
    """Unprocessed events given back: deferred, never lost."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    epoch: int
    events: IntervalSet


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFault:
    """A task cannot run at this site at all: its payload does not import, its set-up fails, its merge fails."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    error: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", plain_text(self.error, ERROR_TEXT_LIMIT))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskActivity:
    """What an edge is doing for a task at this moment."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    cores: int
    cores_busy: float

    def __post_init__(self) -> None:
        require_between("cores", self.cores, 0, 10**9)
        require_between("cores_busy", self.cores_busy, 0.0, 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """Everything an edge has to say since the last time, in one message; also its heartbeat."""

    __pydantic_config__: ClassVar = _STRICT

    instance: str
    renew: tuple[tuple[int, int], ...] = ()
    """``(task_id, epoch)`` of leases to renew."""
    commits: tuple[LeaseCommit, ...] = ()
    returns: tuple[LeaseReturn, ...] = ()
    outputs: tuple[OutputFile, ...] = ()
    faults: tuple[TaskFault, ...] = ()
    activity: tuple[TaskActivity, ...] = ()
    tasks: tuple[int, ...] = ()
    """Tasks whose state the edge wants to know, beyond those named above."""
    reasons: tuple[TaskReason, ...] | None = None
    """Why its tasks are where they are, in the place of what it said before; None leaves that as it is."""
    site: SiteReport | None = None
    """What brokerage should know of the site; None says nothing."""
    usage: UsageReport | None = None
    """What its tasks have used since it last said so; None says nothing."""

    def __post_init__(self) -> None:
        if self.reasons is not None and len(self.reasons) > MAX_REASONS:
            raise InvalidValue("reasons", f"more than {MAX_REASONS}; leave out those that matter least")
        for name in ("renew", "commits", "returns", "outputs", "faults", "activity", "tasks"):
            if len(getattr(self, name)) > MAX_UPDATES:
                raise InvalidValue(name, f"more than {MAX_UPDATES} in one sync; send several")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """Answer to one :class:`LeaseCommit`."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    epoch: int
    accepted: IntervalSet
    """Recorded, now or by an earlier copy of this message."""
    refused: IntervalSet
    """Not held under this epoch: their data must never be merged. Failed events that are to be tried again are
    refused, too: nothing of them is settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOrder:
    """What a task the edge has to do with needs of it now."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    state: TaskState
    first_epoch: int = 1
    """What the edge has of it under lower epochs is void: such leases have ended, and nothing of theirs is merged any
    more. It is more than 1 when the task is tried again, or was taken from the edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReply:
    """Answers, in the order of the request's updates."""

    __pydantic_config__: ClassVar = _STRICT

    commits: tuple[CommitResult, ...] = ()
    lost: tuple[tuple[int, int], ...] = ()
    """Leases of ``renew`` that have ended: stop working under them."""
    tasks: tuple[TaskOrder, ...] = ()
    """State of every task named in the request. ``merging``: merge what was accepted of it here;
    a final state: its spool may be cleaned, running work on it stopped."""
    rejected_outputs: tuple[str, ...] = ()
    """Paths of outputs that do not match what this edge committed."""
    nodes: tuple[NodeQuarantine, ...] | None = None
    """Nodes of the site on which nothing is to be started, in the place of what was said before; None says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A dispatcher that answers, with its store."""

    __pydantic_config__: ClassVar = _STRICT

    version: str
    status: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """RFC 9457 problem details, as all errors are answered."""

    __pydantic_config__: ClassVar = _STRICT

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[str, ...] = field(default=())
    """One line a field, where several are wrong."""
