"""Work that cannot be cut, and how much of it a shape takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpcpanda.domain.validation import require_between


@dataclass(frozen=True, slots=True, kw_only=True)
class RigidJob:
    """Work that cannot be cut: so many whole nodes for so long, and how many alike there are."""

    nodes: int
    seconds: float
    count: int = 1
    urgent: bool = False
    """It shall not wait for a hole."""

    def __post_init__(self) -> None:
        require_between("nodes", self.nodes, 1, 1_000_000)
        require_between("seconds", self.seconds, 0.001, 1e7)
        require_between("count", self.count, 1, 1_000_000_000)

    def of(self, count: int) -> RigidJob:
        """So many of them."""
        if count == self.count:
            return self
        return RigidJob(nodes=self.nodes, seconds=self.seconds, count=count, urgent=self.urgent)


@dataclass(frozen=True, slots=True)
class Beside:
    """Rigid jobs that fit into a shape side by side, and the part of it they need."""

    jobs: tuple[RigidJob, ...]
    nodes: int
    seconds: float

    @property
    def node_seconds(self) -> float:
        """Their work."""
        return sum(j.nodes * j.seconds * j.count for j in self.jobs)

    @property
    def count(self) -> int:
        """How many they are."""
        return sum(j.count for j in self.jobs)


def place_beside(jobs: Iterable[RigidJob], nodes: int, seconds: float) -> Beside:
    """Place jobs in the order given, each on nodes of its own.

    Jobs are not planned one after the other: most end long before their time limit, and what waits gets the nodes then.
    """
    chosen: list[RigidJob] = []
    width, longest = 0, 0.0
    for job in jobs:
        if job.nodes <= nodes - width and job.seconds <= seconds:
            count = min(job.count, (nodes - width) // job.nodes)
            chosen.append(job.of(count))
            width += count * job.nodes
            longest = max(longest, job.seconds)
    return Beside(tuple(chosen), width, longest)


def without(jobs: Sequence[RigidJob], placed: Sequence[RigidJob]) -> list[RigidJob]:
    """The jobs that are left when some, as :func:`place_beside` chose them, are taken away."""
    left: list[RigidJob] = []
    rest = list(placed)
    for job in jobs:
        same = next((p for p in rest if p.of(job.count) == job), None)
        if same is None:
            left.append(job)
            continue
        rest.remove(same)
        if same.count < job.count:
            left.append(job.of(job.count - same.count))
    return left
