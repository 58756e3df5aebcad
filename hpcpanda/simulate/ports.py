"""What the simulated edge needs of a batch system; the host's machine of a trace, and the queue of a preset, are two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from hpcpanda.packing.windows import BackfillWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationEvent:
    """Something that happened to an allocation of ours."""

    at: float
    """Seconds."""
    allocation: int
    what: Literal["started", "preempted", "killed", "ended"]
    """``preempted``: SIGTERM, the grace time begins. ``killed``: it is gone without having ended by itself, at the
    end of the grace time or of the walltime. ``ended``: we ended it."""


class BatchSystem(Protocol):
    """A simulated batch system in which the host's jobs and our allocations run. Deterministic."""

    @property
    def now(self) -> float:
        """Seconds."""
        ...

    def windows(self) -> tuple[BackfillWindow, ...] | None:
        """Backfill windows as the batch system tells them now; None when it tells nothing."""
        ...

    def submit(self, nodes: int, walltime_s: float) -> int:
        """Ask for an allocation; gives its number.

        It starts during :meth:`advance`, at this instant at the earliest.
        """
        ...

    def end(self, allocation: int) -> None:
        """End an allocation of ours now, running or queued; nothing happens when it has ended already.

        The next :meth:`advance` tells that it ``ended``, without time passing.
        """
        ...

    def advance(self, until: float) -> tuple[AllocationEvent, ...]:
        """Go on until something happens to allocations of ours, at most until ``until``.

        ``now`` is then the time of what happened, or ``until``, and all that the host does until then is done. All
        that happens at one instant is told together, except what follows from our own calls at that instant.
        """
        ...

    def next_change(self) -> float:
        """When windows change next by the host's doing, other than by getting shorter; infinity after the last."""
        ...
