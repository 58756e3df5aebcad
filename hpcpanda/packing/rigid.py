"""Work that cannot be cut, and how it is stacked into a shape. Pure."""

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
class Stacked:
    """Rigid jobs that fit into a shape together, and the part of it they need."""

    jobs: tuple[RigidJob, ...]
    nodes: int
    seconds: float

    @property
    def node_seconds(self) -> float:
        """Their work."""
        return sum(j.nodes * j.seconds for j in self.jobs)


def stack(jobs: Sequence[RigidJob], nodes: int, seconds: float) -> Stacked:
    """Place jobs in the order given: behind the first others that are as wide, else on nodes not used yet."""
    columns: list[tuple[int, float]] = []
    chosen: list[RigidJob] = []
    width = 0
    for job in jobs:
        if job.nodes > nodes or job.seconds > seconds:
            continue
        for at, (wide, used) in enumerate(columns):
            if wide >= job.nodes and used + job.seconds <= seconds:
                columns[at] = wide, used + job.seconds
                chosen.append(job)
                break
        else:
            if width + job.nodes <= nodes:
                columns.append((job.nodes, job.seconds))
                width += job.nodes
                chosen.append(job)
    return Stacked(tuple(chosen), width, max((used for _, used in columns), default=0.0))
