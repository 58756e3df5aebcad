"""Where the node-time that a policy held has gone, and what it made of it. Core-seconds until the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hpcpanda.simulate.trace import Floats


@dataclass(slots=True)
class Account:
    """Sums over all allocations of a policy; every core-second held is in exactly one of them."""

    useful: float = 0.0
    """Finished and kept."""
    lost: float = 0.0
    """Begun and thrown away."""
    startup: float = 0.0
    drain: float = 0.0
    """At the end of an allocation, waiting for what still runs."""
    unfilled: float = 0.0
    """Cores, or nodes, without work."""
    requests: int = 0
    preempted: int = 0
    killed_at_wall: int = 0
    failed: int = 0
    """Killed neither by a preemption nor at the wall: a node was lost."""
    events: int = 0
    jobs: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds in the queue, of allocations that started."""
    spans: list[tuple[float, float, int, str]] = field(default_factory=list)
    """Allocations: start, end, nodes, how it ended."""
    turnarounds: list[tuple[float, float]] = field(default_factory=list)
    """Seconds from leaving the dispatcher to being finished; and how many core-seconds of work took so long."""

    @property
    def total(self) -> float:
        """All core-seconds accounted for."""
        return self.useful + self.lost + self.startup + self.drain + self.unfilled

    @property
    def held(self) -> float:
        """Node-seconds of all allocations, by their begin and end."""
        return sum((end - start) * nodes for start, end, nodes, _ in self.spans)

    def turnaround_median(self) -> float:
        """Weighted by work; 0 when nothing was finished."""
        if not self.turnarounds:
            return 0.0
        seconds, weights = np.array(sorted(self.turnarounds)).T
        at = np.searchsorted(np.cumsum(weights), weights.sum() / 2)
        return float(seconds[at])


def quantile(values: list[float], share: float) -> float:
    """The value that such a share is not above; 0 for none."""
    return float(np.quantile(np.array(values), share)) if values else 0.0


def union_steps(spans: list[tuple[float, float, int, str]]) -> tuple[Floats, Floats]:
    """Nodes held over time: value i holds from time i on."""
    if not spans:
        return np.zeros(1), np.zeros(1)
    starts, ends, nodes = (np.array([s[i] for s in spans], dtype=np.float64) for i in range(3))
    times, inverse = np.unique(np.concatenate([starts, ends]), return_inverse=True)
    change = np.bincount(inverse, weights=np.concatenate([nodes, -nodes]))
    return times, np.cumsum(change)
