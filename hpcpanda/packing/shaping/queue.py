"""Which shape to put into the normal queue: the one that brings the most for its wait, or the soonest when it is urgent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hpcpanda.packing.forecast import Forecast
from hpcpanda.packing.rigid import place_beside
from hpcpanda.packing.shaping.rules import RequestRules
from hpcpanda.packing.shaping.value import Prospect
from hpcpanda.packing.shaping.work import Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueShape:
    """A request without a window."""

    nodes: int
    walltime_s: float
    wait_s: float | None
    """Median of the expected wait; None when nothing is known."""
    share: float
    """Expected useful share of the time held, 0..1."""

    @property
    def rate(self) -> float:
        """Useful nodes in the mean over wait and walltime: by the renewal-reward theorem the harvest of one slot that is
        used again and again for this shape."""
        return self.nodes * self.share * self.walltime_s / (self.walltime_s + (self.wait_s or 0.0))


def shape_of(
    demand: Demand, most: int, walltime_s: float, fit_s: float, rules: RequestRules
) -> tuple[int, float]:
    """Nodes and walltime for the work, at most so many and so long; no nodes when none of it fits.

    Loose work takes all of the time, since more of it can be fetched; rigid work alone what it needs.
    """
    rigid = place_beside(demand.rigid, most, fit_s)
    loose = demand.takers(fit_s)
    if most < rules.fewest_nodes or not (rigid.nodes or loose):
        return 0, 0.0
    nodes = max(min(most, rigid.nodes + loose), rules.fewest_nodes)
    if loose or rigid.count < sum(j.count for j in demand.rigid):
        return nodes, walltime_s
    needed = max(rigid.seconds + walltime_s - fit_s, rules.shortest_s)
    steps = math.ceil(needed / rules.step_s - 1e-9)
    return nodes, min(walltime_s, steps * rules.step_s)


def queue_shape(
    demand: Demand, most: int, rules: RequestRules, forecast: Forecast, *, urgent: bool
) -> QueueShape | None:
    """The best shape for the queue of at most so many nodes; None when no work fits into any.

    Without known waits it is the largest. With them it is the one of the highest rate, or for urgent work the one in which
    what is at hand is finished first.
    """
    found = list(_shapes(demand, most, rules, forecast))
    if not found:
        return None
    if urgent and forecast.queue_waits:
        return min(found, key=lambda s: (_finished(s, demand, rules, forecast), s.nodes, s.walltime_s))
    return max(found, key=lambda s: (s.rate, s.nodes, s.walltime_s))


def _shapes(demand: Demand, most: int, rules: RequestRules, forecast: Forecast) -> Iterator[QueueShape]:
    prospect = rules.prospect(forecast)
    widths = {most, *(min(w.nodes, most) for w in forecast.queue_waits)}
    lengths = {rules.longest_s, *(rules.walltime(w.seconds) for w in forecast.queue_waits)}
    tried: set[tuple[int, float]] = set()
    for width in sorted(widths, reverse=True):
        for length in sorted((x for x in lengths if x is not None), reverse=True):
            nodes, walltime = shape_of(demand, width, length, prospect.fit_s(length, cut=False), rules)
            if not nodes or (nodes, walltime) in tried:
                continue
            tried.add((nodes, walltime))
            share = useful_share(prospect, nodes, walltime)
            if share >= rules.least_share or not forecast.preemptions_per_node_hour:
                yield QueueShape(
                    nodes=nodes, walltime_s=walltime, wait_s=_wait(forecast, nodes, walltime), share=share
                )


@lru_cache(maxsize=4096)
def useful_share(prospect: Prospect, nodes: int, life: float, *, cut: bool = False) -> float:
    """Expected useful share of the time that an allocation is held, 0..1."""
    if not prospect.preemptions_per_node_hour:
        return prospect.fit_s(life, cut=cut) / life if life > 0 else 0.0
    n, seconds = np.array(nodes, dtype=np.int64), np.array(life)
    held = float(prospect.held(n, seconds))
    return float(prospect.useful(n, seconds, cut=np.array(float(cut)))) / held if held > 0 else 0.0


def _wait(forecast: Forecast, nodes: int, seconds: float) -> float | None:
    """The median wait; of a shape larger than any that was seen, the worst that is known."""
    if not forecast.queue_waits:
        return None
    known = forecast.wait(nodes, seconds)
    return known.median_s if known is not None else max(w.p90_s for w in forecast.queue_waits)


def _finished(shape: QueueShape, demand: Demand, rules: RequestRules, forecast: Forecast) -> float:
    """Seconds until the urgent work at hand that fits is finished in as many allocations of this shape as it takes."""
    fit = rules.prospect(forecast).fit_s(shape.walltime_s, cut=False)
    pieces = [w for w in demand.loose if w.urgent and w.seconds <= fit]
    rigid = [j for j in demand.rigid if j.urgent and j.seconds <= fit and j.nodes <= shape.nodes]
    if not pieces and not rigid:
        return float("inf")
    work = sum(w.node_seconds for w in pieces) + sum(j.nodes * j.seconds * j.count for j in rigid)
    longest = max([w.seconds for w in pieces] + [j.seconds for j in rigid])
    rounds = max(1, math.ceil(work / (shape.nodes * fit))) if fit > 0 else 1
    return rounds * (shape.wait_s or 0.0) + max(longest, work / shape.nodes)
