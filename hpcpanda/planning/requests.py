"""Which shapes new allocations could have now: the site's own, or what backfill windows suggest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hpcpanda.domain.site import Site
from hpcpanda.packing.requests import Held, RequestRules, WorkAtHand, plan_requests
from hpcpanda.planning.actions import NewAllocation
from hpcpanda.planning.situation import Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """An allocation that could be asked for."""

    nodes: int
    """At most."""
    fewest_nodes: int
    walltime_s: float
    why: str
    in_window: bool = False

    def useful_s(self, site: Site) -> float:
        """Time in which work can be done."""
        return self.walltime_s - site.allocation.margin_s


def shapes(s: Situation, work: WorkAtHand, planned: Iterable[NewAllocation] = ()) -> tuple[Shape, ...]:
    """Allocations that could be asked for now, all of them together, besides those planned already."""
    if s.now < s.submit_not_before:
        return ()
    planned = tuple(planned)
    if s.windows is None:
        slots = s.site.limits.allocations - len(s.allocations) - len(planned)
        nodes = s.site.node_limit - sum(a.nodes for a in s.allocations)
        nodes -= sum(a.nodes for a in planned)
        return tuple(_default(s.site, slots, nodes))
    queue, margin = s.site.scheduler.queue, s.site.allocation.margin_s
    held = [
        Held(
            nodes=a.nodes,
            seconds=max(0.0, a.seconds_left + margin),
            queue=queue,
            queued=not a.running,
            in_window=a.in_window,
        )
        for a in s.allocations
    ]
    held += [
        Held(nodes=p.nodes, seconds=p.walltime_s, queue=queue, queued=True, in_window=p.in_window)
        for p in planned
    ]
    windows = [w for w in s.windows if w.queue == queue]
    found = plan_requests(windows, RequestRules.of_site(s.site), work, held)
    return tuple(
        Shape(
            nodes=r.nodes,
            fewest_nodes=s.site.queue.min_nodes,
            walltime_s=r.walltime_s,
            why=f"fits into {r.window}" if r.window else "no window can be used now: it waits in the queue",
            in_window=r.window is not None,
        )
        for r in found.requests
    )


def _default(site: Site, slots: int, nodes: int) -> Iterator[Shape]:
    """The site's own shape, as often as the limits allow."""
    for _ in range(slots):
        most = min(nodes, site.queue.max_nodes or nodes)
        if most < site.queue.min_nodes:
            return
        nodes -= most
        yield Shape(
            nodes=most,
            fewest_nodes=site.queue.min_nodes,
            walltime_s=site.allocation.walltime_s,
            why="nothing is known of windows: the walltime of the site file",
        )
