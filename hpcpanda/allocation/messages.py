"""What node agents and the coordinator of a task's events (rank 0) say to each other over MPI."""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.allocation.plan import LeasedEvents
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.columns import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Events of one epoch in hand of an agent."""

    epoch: int
    first: int
    last: int
    attempts: int = 0
    """How often the event failed alone."""
    suspect: bool = False
    """Part of a range that failed: run whole, not cut or joined."""

    @property
    def events(self) -> IntervalSet:
        """Its events."""
        return IntervalSet.span(self.first, self.last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Work for an agent."""

    pieces: tuple[Piece, ...]
    left: int
    """Events the coordinator still has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """An agent asks for about that many events. It asks again only after an answer."""

    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPiece:
    """A range that the payload failed on."""

    piece: Piece
    error: str
    node: str | None = None
    """Where that was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an agent has done since its last report."""

    done: tuple[LeasedEvents, ...] = ()
    back: tuple[LeasedEvents, ...] = ()
    """Given back unprocessed."""
    failed: tuple[FailedPiece, ...] = ()
    seconds: float = 0.0
    """Wall seconds of the ``done`` events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Journal these events as failed for good."""

    epoch: int
    event: FailedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of the task's output: from the agent that saw them first, then to all."""

    schema: Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Drop what is in hand of these epochs."""

    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Start nothing new, end within ``grace_s``, flush, say bye."""

    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """The agent's files are closed; ``error`` says why, if it had to stop."""

    error: str | None = None
    payload_fault: bool = False
    """Whether the payload cannot be set up at all."""
    again: bool = False
    """Whether another start of the pack may go better."""


ToAgent = Chunk | SetAside | Columns | Forget | Finish
ToCoordinator = Want | Report | Columns | Bye


def leased(events: dict[int, IntervalSet]) -> tuple[LeasedEvents, ...]:
    """Interval sets by epoch as message parts; empty ones left out."""
    return tuple(LeasedEvents(epoch=e, events=s) for e, s in events.items() if s)
