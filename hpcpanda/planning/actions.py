"""What the planner may decide: actions of this edge, and work to ask the dispatcher for, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from hpcpanda.domain.room import Room
from hpcpanda.domain.why import Why
from hpcpanda.planning.situation import PackKind


class Reason(StrEnum):
    """Why a task is where it is, at this edge."""

    RUNNING = "running"
    STARTING = "starting"
    """An allocation with a pack of it is planned, queued or starting."""
    STAGING = "staging"
    """Its inputs are being copied; nothing that is here can run before."""
    NO_WORK = "no-work"
    """Everything leased of it is finished; more is asked for as capacity allows."""
    BACKING_OFF = "backing-off"
    """Its packs ended without a finished event; the next try is put off."""
    ALLOCATION_LIMIT = "allocation-limit"
    NODE_LIMIT = "node-limit"
    SUBMISSION_FAILING = "submission-failing"
    NO_WINDOW = "no-window"
    """No nodes are free for long enough, and one request waits in the queue already."""
    WAITING_FOR_NODES = "waiting-for-nodes"
    """Its MPI job waits until so many nodes of an allocation are free."""
    DOES_NOT_FIT = "does-not-fit"
    """A job of it asks for more than a node, an allocation or the time left has."""
    DRAINING = "draining"
    WAITING_FOR_COMMITS = "waiting-for-commits"
    """Its merge waits until the dispatcher has answered all commits."""
    MERGING = "merging"
    MERGED = "merged"
    FAULT = "fault"
    """It cannot run here; the dispatcher has been told, or will be."""
    PAUSED = "paused"
    """Its user has paused it: what runs is finished, the rest goes back."""
    FINAL = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many ready events, or jobs, of a task."""

    task_id: int
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPlan:
    """A pack to be started, and what goes into it. A merge takes what is accepted: its share has no events; without nodes,
    it runs beside other packs."""

    kind: PackKind
    nodes: int
    work: tuple[Share, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPack:
    """Hand ready events, or jobs, of a task to a pack that runs; to one that has not had the task yet, too."""

    allocation_id: str
    pack_id: str
    share: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPack:
    """Start a pack on free nodes of an allocation."""

    allocation_id: str
    pack: PackPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAllocation:
    """Ask the batch system for an allocation that starts with these packs."""

    nodes: int
    walltime_s: float
    packs: tuple[PackPlan, ...]
    why: str = ""
    """The reason for its shape, for people."""
    because: Why | None = None
    """The same as data."""
    in_window: bool = False
    """It is to fill a backfill window; otherwise it may wait in the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndPart:
    """A pack is to be done with a task, so that another task of events can have its place."""

    allocation_id: str
    pack_id: str
    task_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeNodes:
    """A pack is to finish what it has begun and end: an MPI job, or more urgent events, wait for its nodes."""

    allocation_id: str
    pack_id: str
    for_task: int
    """That waits for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    """Return the ready events, or jobs, of a task to the dispatcher."""

    task_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAllocation:
    """Take back an allocation that waits in the queue for nothing."""

    allocation_id: str
    because: Why


Action = FeedPack | AddPack | NewAllocation | EndPart | FreeNodes | GiveBack | CancelAllocation


Lane = Literal["events", "jobs", "urgent"] | None
"""Questions for anything, for events, for jobs, and for what is urgent wait beside each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Work to ask the dispatcher for."""

    cores: int
    seconds: float
    task_id: int | None = None
    """Of this task only, for a pack that runs it."""
    only: Literal["events", "jobs"] | None = None
    room: Room | None = None
    """Largest job that there is room for; None when no jobs are wanted."""
    without: tuple[int, ...] = ()
    """Tasks of which nothing can be used now."""
    above: int | None = None
    """Only tasks of a higher priority than this: they would interrupt others."""

    @property
    def lane(self) -> Lane:
        """Which of the questions that wait beside each other it is."""
        return "urgent" if self.above is not None else self.only


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, what to ask for, and why each task is where it is."""

    actions: tuple[Action, ...]
    wants: tuple[Want, ...]
    reasons: dict[int, Reason] = field(default_factory=dict)
    numbers: dict[int, dict[str, float]] = field(default_factory=dict)
    """What the reason of a task rests on, by name; only of tasks that something can be said of."""
    refusals: tuple[Why, ...] = ()
    """Why no more allocations, or none, were asked for; empty while all work at hand has a place."""
