"""What jobs take of a node, and when a large one would find its place. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.room import Room


@dataclass(frozen=True, slots=True)
class Space:
    """Cores, memory and GPUs of one node; differences may be negative."""

    cores: int = 0
    memory_mb: int = 0
    gpus: int = 0

    @classmethod
    def of(cls, what: Room | JobRequest) -> Space:
        """Of a whole node, or what a job on one node asks for."""
        return cls(what.cores, what.memory_mb, what.gpus)

    def __add__(self, other: Space) -> Space:
        return Space(self.cores + other.cores, self.memory_mb + other.memory_mb, self.gpus + other.gpus)

    def __sub__(self, other: Space) -> Space:
        return Space(self.cores - other.cores, self.memory_mb - other.memory_mb, self.gpus - other.gpus)

    def covers(self, other: Space) -> bool:
        """Whether there is room for ``other`` in it."""
        return other.cores <= self.cores and other.memory_mb <= self.memory_mb and other.gpus <= self.gpus

    def share_of(self, whole: Space) -> float:
        """The largest of its shares of cores, memory and GPUs (dominant resource: A. Ghodsi et al., NSDI 2011)."""
        pairs = (
            (self.cores, whole.cores),
            (self.memory_mb, whole.memory_mb),
            (self.gpus, whole.gpus),
        )
        return max(part / all_ for part, all_ in pairs if all_)

    def times_in(self, whole: Space) -> int:
        """How many like it fit into ``whole`` at the same time."""
        counts = [max(0, whole.cores) // self.cores, max(0, whole.memory_mb) // self.memory_mb]
        if self.gpus:
            counts.append(max(0, whole.gpus) // self.gpus)
        return min(counts)


@dataclass(frozen=True, slots=True)
class Shadow:
    """When a job that does not fit now will fit, and what it leaves free then (EASY backfill: A. Mu'alem,
    D. Feitelson, IEEE Trans. Parallel Distrib. Syst. 12, 529, 2001)."""

    at: float
    spare: Space


def shadow(free: Space, ends: Iterable[tuple[float, Space]], wanted: Space) -> Shadow | None:
    """The shadow of a job on a node.

    Args:
        free: what is free now.
        ends: what comes free at latest when.
        wanted: what the job asks for; None is given when even the empty node has less.
    """
    by_time = sorted(ends, key=lambda e: e[0])
    for n, (at, space) in enumerate(by_time):
        free += space
        if free.covers(wanted) and (n + 1 == len(by_time) or by_time[n + 1][0] > at):
            return Shadow(at, free - wanted)
    return None
