"""What an allocation is expected to meet: the learnt numbers that shape requests. Pure values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcpanda.domain.validation import require_between


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWait:
    """Time between asking for an allocation and its start, for shapes up to a size."""

    nodes: int
    """Up to so many nodes."""
    seconds: float
    """And up to so long a walltime."""
    median_s: float
    p90_s: float
    seen: int = 0
    """Allocations that it was learnt from; 0: an assumption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is known of how allocations fare at a site at this hour."""

    startup_s: float = 0.0
    """From the begin of an allocation to its first event, all cores idle."""
    preemptions_per_node_hour: float = 0.0
    """Hazard of being preempted: expected number an hour that a node is held."""
    queue_waits: tuple[QueueWait, ...] = ()
    """By shape; the first that covers a shape counts."""

    def __post_init__(self) -> None:
        require_between("startup_s", self.startup_s, 0.0, 1e6)
        require_between("preemptions_per_node_hour", self.preemptions_per_node_hour, 0.0, 1e6)

    def wait(self, nodes: int, seconds: float) -> QueueWait | None:
        """The expected wait of a shape; None when nothing is known of it."""
        return next((w for w in self.queue_waits if nodes <= w.nodes and seconds <= w.seconds), None)

    def startup_within(self, useful_s: float) -> float:
        """The start-up to be counted with in an allocation that could work for so long.

        Never more than half of it: one bad measurement must not keep everything from running for ever, for then nothing
        better would be learnt.
        """
        return min(self.startup_s, useful_s / 2)

    def survival(self, nodes: int, seconds: float) -> float:
        """Probability that none of so many nodes is preempted for so long."""
        return math.exp(-self.preemptions_per_node_hour * nodes * seconds / 3600.0)
