"""What is asked for, and what is not, each with its reason as data. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hpcpanda.domain.why import Why
from hpcpanda.packing.windows import BackfillWindow


class RequestReason(StrEnum):
    """Why an allocation is asked for in this shape."""

    FILLS_WINDOW = "fills-window"
    """All nodes of a hole, for as long as it or the longest walltime lasts."""
    PART_OF_WINDOW = "part-of-window"
    """A limit, or the work at hand, is smaller than the hole."""
    PREEMPTIBLE = "preemptible"
    """Nodes that are idle now, until the centre needs them."""
    NO_WINDOW = "no-window"
    """No hole can be used now; the request waits in the queue."""
    URGENT = "urgent"
    """The work shall not wait for a hole that takes it."""
    SHORT_WAIT = "short-wait"
    """The queue is so quick that a slot brings more there than in the least of the holes."""
    WINDOWS_UNKNOWN = "windows-unknown"
    """The batch system tells nothing of holes; the site's default shape."""


class RefusalReason(StrEnum):
    """Why nothing, or nothing more, is asked for."""

    NO_WORK = "no-work"
    ALLOCATION_LIMIT = "allocation-limit"
    NODE_LIMIT = "node-limit"
    WINDOW_TOO_SHORT = "window-too-short"
    WINDOW_TOO_NARROW = "window-too-narrow"
    """The queue takes no request of so few nodes."""
    WINDOW_UNSUITABLE = "window-unsuitable"
    """None of the work at hand fits into the hole."""
    WINDOW_NOT_WORTH = "window-not-worth"
    """Too little of its time would be useful."""
    ALREADY_QUEUED = "already-queued"
    """Enough requests wait in the queue; more would only flood it."""
    WINDOWS_MISSED = "windows-missed"
    """Requests for holes did not start lately: the next are put off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRequest:
    """An allocation to ask for."""

    nodes: int
    walltime_s: float
    queue: str | None
    reason: RequestReason
    sentence: str
    """The reason, for people."""
    window: BackfillWindow | None = None
    """The hole it fits into."""
    numbers: dict[str, float] = field(default_factory=dict, compare=False)
    """What the reason rests on, see :class:`~hpcpanda.domain.why.Why`."""

    @property
    def why(self) -> Why:
        """The reason as data."""
        return Why(code=self.reason.value, sentence=self.sentence, numbers=self.numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why nothing is asked for, of a hole or at all."""

    reason: RefusalReason
    sentence: str
    window: BackfillWindow | None = None
    numbers: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def why(self) -> Why:
        """The reason as data."""
        return Why(code=self.reason.value, sentence=self.sentence, numbers=self.numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan:
    """What to ask for, and what not, with reasons."""

    requests: tuple[AllocationRequest, ...]
    refusals: tuple[Refusal, ...]

    def explain(self) -> tuple[str, ...]:
        """All of it in sentences, requests first."""
        return (*(r.sentence for r in self.requests), *(r.sentence for r in self.refusals))
