"""What jobs take of a node, resource by resource, and how long they run: what bounds are computed of. Pure; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hpcpanda.packing.bounding.classes import TICKS, Classes, ticks
from hpcpanda.packing.bounding.scales import Scales
from hpcpanda.packing.tables import DIMENSIONS, Floats, Ints, JobTable, NodeTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource, or a sum of several, of all jobs; jobs of several nodes demand all of it."""

    name: str
    demand: Ints
    capacity: int

    def of(self, kept: NDArray[np.bool_]) -> Resource:
        """The same of some jobs."""
        return Resource(name=self.name, demand=self.demand[kept], capacity=self.capacity)

    def ticks(self) -> Ints:
        """The demand in ticks of the capacity."""
        return ticks(self.demand, self.capacity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long jobs run, of the time there is."""

    ticks: Ints
    classes: Classes
    scales: Scales
    shares: Floats
    seconds: float


def scarce_resources(jobs: JobTable, kind: NodeTable) -> list[Resource]:
    """The resources that can be scarce, and the sums of two and of all of them.

    One of which every job takes a smaller share than of another proves nothing more: the functions are monotone.
    """
    wide = jobs.nodes > 1
    shares: dict[str, Ints] = {}
    real: dict[str, Resource] = {}
    for name in DIMENSIONS:
        capacity = max(1, int(getattr(kind, name)[0]))
        demand = np.where(wide, capacity, getattr(jobs, name))
        share = ticks(demand, capacity)
        if any(bool(np.all(share <= other)) for other in shares.values()):
            continue
        for other in [o for o in shares if bool(np.all(shares[o] <= share))]:
            del shares[other], real[other]
        shares[name], real[name] = share, Resource(name=name, demand=demand, capacity=capacity)
    sums = list(combinations(shares, 2)) + ([tuple(shares)] if len(shares) > 2 else [])
    return list(real.values()) + [
        Resource(
            name="+".join(names),
            demand=np.sum([shares[n] for n in names], axis=0),
            capacity=len(names) * TICKS,
        )
        for names in sums
    ]
