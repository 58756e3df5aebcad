"""Messages between an edge and its allocations, through the spool folder. Format 1.

``plan.json`` is written before the allocation is submitted; ``inbox/NNNNNN.json`` are messages from
the edge, in order; ``status.json`` is the head's answer, replaced atomically. All files are written
under a temporary name, fsynced and renamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.site import Site
from hpcpanda.domain.task import TaskSpec

_STRICT: dict[str, object] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedEvents:
    """Events under one epoch of the dispatcher's lease."""

    __pydantic_config__: ClassVar = _STRICT

    epoch: int
    events: IntervalSet


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPack:
    """A pack that streams events of one task to all cores of its nodes."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    nodes: int
    task_id: int
    spec: TaskSpec
    events: tuple[LeasedEvents, ...]
    event_seconds: float | None = None
    """Core-seconds an event, if known."""
    kind: Literal["events"] = "events"


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
    """Path of the merged file."""
    failed: IntervalSet = EMPTY
    """Events set aside for good, for the manifest."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Free facts for the manifest: site, dispatcher, versions."""
    nodes: int = 1
    kind: Literal["merge"] = "merge"


Pack = EventPack | MergePack


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
    """More events for a pack that runs."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    events: tuple[LeasedEvents, ...]
    kind: Literal["top-up"] = "top-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPack:
    """A further pack for free nodes of the allocation."""

    __pydantic_config__: ClassVar = _STRICT

    pack: Pack
    kind: Literal["start-pack"] = "start-pack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """Stop working under these epochs; what is journalled of them stays where it is."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    epochs: tuple[int, ...]
    kind: Literal["revoke"] = "revoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Start no new range, finish what fits into ``grace_s``, flush, end."""

    __pydantic_config__: ClassVar = _STRICT

    grace_s: float
    pack_id: str | None = None
    """Only this pack; without it all packs, and the allocation with them."""
    kind: Literal["drain"] = "drain"


InboxMessage = TopUp | StartPack | Revoke | Drain


@dataclass(frozen=True, slots=True, kw_only=True)
class PackStatus:
    """How a pack is doing."""

    __pydantic_config__: ClassVar = _STRICT

    pack_id: str
    task_id: int
    state: Literal["starting", "running", "ended", "failed"]
    incarnation: int = 0
    """How often the pack was started again after it died."""
    cores: int = 0
    cores_busy: float = 0.0
    """Mean number of cores at work since the last status."""
    occupancy: tuple[float, ...] = ()
    """The same for each core, 0..1: all cores of the first node, then of the next."""
    events_done: int = 0
    events_per_second: float = 0.0
    event_seconds: float | None = None
    backlog_s: float = 0.0
    """Work in hand, in seconds of all the pack's cores."""
    idle: bool = False
    """Nothing to hand out and nothing in hand."""
    progress: float = 0.0
    """Share of its work that a merge pack has done, 0..1."""
    error: str | None = None
    """Why the pack failed; a set-up error is the task's fault at this site."""
    result: dict[str, str | int] = field(default_factory=dict)
    """What a merge pack made: path, manifest, digest, size."""


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
