"""The bounds that every request for an allocation keeps, and those of a site file. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import Site
from hpcpanda.domain.validation import require_between
from hpcpanda.packing.forecast import Forecast
from hpcpanda.packing.shaping.value import Prospect

LEAST_USEFUL_SHARE: Final = 0.5
"""Of the time that an allocation is expected to be held, so much must be useful for it to be asked for."""
UNKNOWN_END_S: Final = 3600.0
"""Longest walltime in a window without a known end, where the centre cannot preempt: the longer one of ours, the longer
the centre's next job may have to wait for it."""
_QUEUE_SHARE: Final = 20
_FEW_NODES: Final = 4
_MINUTE: Final = 60.0
_LEAST_MARGINS: Final = 2.0
_LEAST_WALLTIME_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """The bounds that every request keeps."""

    allocations: int
    """Allocations queued or running at a time."""
    nodes: int
    """Nodes of all allocations together."""
    fewest_nodes: int = 1
    """Nodes of one allocation, at least."""
    most_nodes: int | None = None
    """Nodes of one allocation, at most."""
    longest_s: float
    """Longest walltime; also that of a request without a window."""
    shortest_s: float
    """Shortest walltime that is ever asked for."""
    drain_s: float = 0.0
    """End of an allocation in which no work is started."""
    start_margin_s: float = 30.0
    """A request ends this much before its window, which has shrunk by the time the job starts."""
    step_s: float = 1.0
    """Walltimes are multiples of it: batch systems round up to minutes, out of the window."""
    queue: str | None = None
    """Where requests go; windows of other queues are not used."""
    queued: int = 1
    """Requests without a window that wait in the queue at a time: of urgent work, or where nothing is known of
    windows. Otherwise never more than one."""
    least_share: float = LEAST_USEFUL_SHARE
    """Of the time that an allocation is expected to be held, the share that must be useful, 0..1."""
    preemptible: bool = False
    """The batch system ends our allocations when it needs their nodes, so they need not fit into a window."""
    grace_s: float = 0.0
    """What a preemption costs of each node's useful time."""

    def __post_init__(self) -> None:
        require_between("allocations", self.allocations, 1, 10_000)
        require_between("nodes", self.nodes, 1, 1_000_000)
        require_between("fewest_nodes", self.fewest_nodes, 1, 1_000_000)
        if self.most_nodes is not None:
            require_between("most_nodes", self.most_nodes, self.fewest_nodes, 1_000_000)
        require_between("step_s", self.step_s, 0.001, 3600.0)
        require_between("longest_s", self.longest_s, self.step_s, 1e7)
        require_between("shortest_s", self.shortest_s, 0.001, self.longest_s)
        require_between("drain_s", self.drain_s, 0.0, 1e7)
        require_between("start_margin_s", self.start_margin_s, 0.0, 1e7)
        require_between("queued", self.queued, 1, 10_000)
        require_between("least_share", self.least_share, 0.0, 1.0)
        require_between("grace_s", self.grace_s, 0.0, 1e7)
        if self.drain_s >= self.longest_s:
            raise InvalidValue("drain_s", "leaves nothing of the longest walltime to work in")

    @classmethod
    def of_site(cls, site: Site, *, windows_known: bool = True) -> RequestRules:
        """The bounds of a site file.

        The shortest walltime is two margins, and at least 5 s. Where nothing is known of windows, as many requests may
        wait as there may be allocations, unless the site file says how many.
        """
        longest, limits = site.allocation.walltime_s, site.limits
        return cls(
            allocations=limits.allocations,
            nodes=site.node_limit,
            fewest_nodes=site.queue.min_nodes,
            most_nodes=site.queue.max_nodes,
            longest_s=longest,
            shortest_s=min(max(_LEAST_MARGINS * site.allocation.margin_s, _LEAST_WALLTIME_S), longest),
            drain_s=site.allocation.margin_s,
            step_s=_MINUTE if longest >= _MINUTE else 1.0,
            queue=site.scheduler.queue,
            queued=limits.queued or (1 if windows_known else limits.allocations),
            preemptible=site.queue.preemptible,
            grace_s=site.allocation.grace_s,
        )

    def walltime(self, seconds: float) -> float | None:
        """The longest allowed walltime inside so many seconds; None when there is none.

        A walltime is a multiple of the step, and leaves time to work before the drain.
        """
        steps = math.floor(min(seconds, self.longest_s) / self.step_s + 1e-9)
        walltime = steps * self.step_s
        return walltime if walltime >= self.shortest_s and walltime > self.drain_s else None

    def in_window(self, length: float) -> float | None:
        """The walltime to ask for in a hole of so many seconds; None when it is too short for any."""
        if self.preemptible:
            return self.walltime(self.longest_s) if length >= self.shortest_s else None
        if math.isinf(length):
            return self.walltime(UNKNOWN_END_S)
        return self.walltime(length - self.start_margin_s)

    @property
    def queue_nodes(self) -> int:
        """Nodes of a request that waits in the queue though windows are known and nothing is urgent: few, since as long as
        it waits they are not there for windows."""
        return max(self.nodes // _QUEUE_SHARE, _FEW_NODES, self.fewest_nodes)

    def prospect(self, forecast: Forecast) -> Prospect:
        """What takes useful time from an allocation here."""
        return Prospect(
            startup_s=forecast.startup_within(self.longest_s - self.drain_s),
            drain_s=self.drain_s,
            loss_s=self.grace_s,
            preemptions_per_node_hour=forecast.preemptions_per_node_hour,
        )
