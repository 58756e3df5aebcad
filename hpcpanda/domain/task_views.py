"""What people are shown of tasks: bodies of answers of the REST API under /v1, version 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hpcpanda.domain.control import TaskChanges
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.failures import ListedFailure
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.why import Why

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the events, or jobs, of a task are, and how fast they come."""

    __pydantic_config__: ClassVar = _STRICT

    total: int
    ready: int
    leased: int
    done: int
    failed: int
    event_seconds: float | None = None
    """Core-seconds an event, or job, costs, as measured; None before the first commit."""
    events_per_second: float = 0.0
    """Recent rate of finished events."""
    cores_busy: float = 0.0
    """Busy cores now, over all edges, as last reported."""
    cores: int = 0
    """Cores allocated to the task now, as last reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as the dispatcher knows it."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    owner: str
    state: TaskState
    spec: TaskSpec
    progress: Progress
    created: float
    """Unix seconds."""
    updated: float
    """Unix seconds of the last change of state or counts."""
    message: str | None = None
    """Why the task is in this state, where that needs saying."""
    changes: TaskChanges | None = None
    """What is asked for now in the place of what was submitted; None while that is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """One page of a listing, newest first."""

    __pydantic_config__: ClassVar = _STRICT

    tasks: tuple[Task, ...]
    next_after: int | None = None
    """Pass as ``after`` for the next page; None on the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEventPage:
    """One page of a task's failed events, or jobs, by number."""

    __pydantic_config__: ClassVar = _STRICT

    events: tuple[ListedFailure, ...]
    next_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """All outputs of a task."""

    __pydantic_config__: ClassVar = _STRICT

    files: tuple[OutputFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseInfo:
    """An open lease as shown to people."""

    __pydantic_config__: ClassVar = _STRICT

    epoch: int
    edge: str
    outstanding: int
    """Events not yet committed."""
    expires_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeReason:
    """Why a task is where it is at one edge."""

    __pydantic_config__: ClassVar = _STRICT

    edge: str
    why: Why
    ago_s: float
    """Seconds since the edge said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a task is where it is, in sentences and as data."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    state: TaskState
    reasons: tuple[str, ...]
    leases: tuple[LeaseInfo, ...] = ()
    edges: tuple[EdgeReason, ...] = ()
    """What the edges that have some of it say, as last reported."""
    brokerage: tuple[EdgeReason, ...] = ()
    """Why each site may have some of it now or may not, and why it was last given or refused some."""
    order: Why | None = None
    """Its place in the order of all that wait, with its points by component; None when nothing of it is ready."""
