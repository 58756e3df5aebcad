"""Work that cannot be cut, and how much of it a shape takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcpanda.domain.validation import require_between


@dataclass(frozen=True, slots=True, kw_only=True)
class RigidJob:
    """Work that cannot be cut: so many whole nodes for so long."""

    nodes: int
    seconds: float

    def __post_init__(self) -> None:
        require_between("nodes", self.nodes, 1, 1_000_000)
        require_between("seconds", self.seconds, 0.001, 1e7)


@dataclass(frozen=True, slots=True)
class Beside:
    """Rigid jobs that fit into a shape side by side, and the part of it they need."""

    jobs: tuple[RigidJob, ...]
    nodes: int
    seconds: float

    @property
    def node_seconds(self) -> float:
        """Their work."""
        return sum(j.nodes * j.seconds for j in self.jobs)


def place_beside(jobs: Sequence[RigidJob], nodes: int, seconds: float) -> Beside:
    """Place jobs in the order given, each on nodes of its own.

    Jobs are not planned one after the other: most end long before their time limit, and what waits gets the nodes then.
    """
    chosen: list[RigidJob] = []
    width = 0
    for job in jobs:
        if width + job.nodes <= nodes and job.seconds <= seconds:
            chosen.append(job)
            width += job.nodes
    return Beside(tuple(chosen), width, max((j.seconds for j in chosen), default=0.0))
