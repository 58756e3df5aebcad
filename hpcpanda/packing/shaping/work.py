"""What could be run, and what was asked for already: the demand side of a request. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.domain.validation import require_between
from hpcpanda.packing.rigid import RigidJob


@dataclass(frozen=True, slots=True, kw_only=True)
class LooseWork:
    """Events, or jobs on one node: work that takes as many nodes as it gets, and goes on for as long as it gets them."""

    nodes: int
    """Nodes that it can keep busy."""
    seconds: float = 0.0
    """Time that the longest piece of it needs."""
    node_seconds: float = 0.0
    """All of it that is at hand, in seconds of a node; 0 when that is not known."""
    urgent: bool = False
    """It shall not wait for a hole."""

    def __post_init__(self) -> None:
        require_between("nodes", self.nodes, 1, 1_000_000_000)
        require_between("seconds", self.seconds, 0.0, 1e7)
        require_between("node_seconds", self.node_seconds, 0.0, 1e18)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkAtHand:
    """What could be run now and that no held allocation takes."""

    loose: tuple[LooseWork, ...] = ()
    rigid: tuple[RigidJob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An allocation that was asked for before and has not ended."""

    nodes: int
    seconds: float
    """Walltime while it is queued, time left once it runs."""
    queue: str | None = None
    queued: bool = False
    in_window: bool = False
    """It was asked for to fill a hole."""
    unseen: bool = False
    """It runs, but began after the windows were seen: they still have its nodes."""


class Demand:
    """The work at hand while requests take of it: long pieces first, since they fit into few holes."""

    def __init__(self, work: WorkAtHand) -> None:
        self.loose = sorted(work.loose, key=lambda w: (-w.seconds, -w.nodes, not w.urgent))
        self.rigid = sorted(work.rigid, key=lambda j: (-j.nodes * j.seconds, -j.nodes, not j.urgent))

    def __bool__(self) -> bool:
        return bool(self.loose or self.rigid)

    @property
    def urgent(self) -> bool:
        """Whether some of it shall not wait for a hole."""
        return any(w.urgent for w in self.loose) or any(j.urgent for j in self.rigid)

    def takers(self, seconds: float) -> int:
        """Nodes that loose work keeps busy which has no piece of more than so many seconds."""
        return sum(w.nodes for w in self.loose if w.seconds <= seconds)

    def use(self, nodes: int, seconds: float) -> None:
        """Count loose work off that so many nodes take for so long."""
        left: list[LooseWork] = []
        for work in self.loose:
            taken = min(nodes, work.nodes) if work.seconds <= seconds else 0
            nodes -= taken
            if not taken:
                left.append(work)
            elif work.nodes > taken:
                more = work.nodes - taken
                left.append(
                    LooseWork(
                        nodes=more,
                        seconds=work.seconds,
                        node_seconds=work.node_seconds * more / work.nodes,
                        urgent=work.urgent,
                    )
                )
        self.loose = left
