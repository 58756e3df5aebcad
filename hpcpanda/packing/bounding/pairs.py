"""Dual feasible functions of two resources together: what takes nearly all of one leaves the other idle. Pure; NumPy only.

A job takes x of one resource and y of another, as shares of a node. For a ratio r >= 1, h(x, y) = min(x, r y) is
superadditive, so that the h of jobs that fit a node together add up to h(1, 1) = 1 at most. Of a set of large jobs, no two of
which fit together, each may count 1 - h(1 - x, 1 - y) instead: no more than h(1 - x, 1 - y) fits beside it, and it is the only one
of them on its node. That is no less than h(x, y). So a job of all the memory counts as a whole node however few cores it takes,
and one of nearly all of it as nearly a node, unless jobs of many cores and hardly any memory are to count in full beside it.

These are vector packing dual feasible functions in the sense of Alves, Valerio de Carvalho, Clautiaux, Rietz,
"Multidimensional dual-feasible functions and fast lower bounds for the vector packing problem", European Journal of
Operational Research 233 (2014). They do not depend on the jobs at hand, and never fall where x or y grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

import numpy as np

from hpcpanda.packing.bounding.classes import TICKS
from hpcpanda.packing.bounding.measures import Resource, Times
from hpcpanda.packing.tables import Floats, Ints

RATIOS: Final[Floats] = 2.0 ** np.arange(0, 6.5, 0.5)
"""1 to 64: of what a job takes of the first resource over what it takes of the second; what is more is not counted."""
LARGE: Final = ((0, 1), (1, 0), (1, 1))
"""Weights of two resources: of jobs that take more than half of a node's weighted sum, no two fit together."""
MOST_COMPARED = 4096
"""Jobs by which functions are compared."""


def pair_values(first: Ints, second: Ints, large: tuple[int, int], ratio: Floats | float) -> Floats:
    """One function of jobs, or one for each ratio.

    Args:
        first: ticks that each job takes of a resource, 0 to :data:`TICKS`.
        second: the same of another resource.
        large: weights by which jobs are large, of :data:`LARGE`.
        ratio: one, or a column of them.

    Returns:
        Its share of a node, 0 to 1, of each job; a row for each ratio.
    """
    x, y = first / TICKS, second / TICKS
    alone = 2 * (large[0] * first + large[1] * second) > sum(large) * TICKS
    values: Floats = np.where(alone, np.maximum(x, 1 - ratio * (1 - y)), np.minimum(x, ratio * y))
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A function of two resources, and one of the time."""

    first: Resource
    second: Resource
    large: tuple[int, int]
    ratio: float
    time: int
    """Number of the function of the time; 0 is the volume."""

    def count(self, nodes: Ints, times: Times) -> float:
        """The nodes that the functions make of all jobs."""
        shares = pair_values(self.first.ticks(), self.second.ticks(), self.large, self.ratio) * nodes
        return float(
            shares @ (times.scales.values[self.time][times.classes.of] if self.time else times.shares)
        )

    def name(self, times: Times) -> str:
        """For those who ask what proves a bound."""
        of = f"{self.first.name} beside {self.second.name}, ratio {self.ratio:.3g}"
        return f"{of}; time, {times.scales.names[self.time]}"


def strongest_pairs(resources: Sequence[Resource], nodes: Ints, times: Times) -> list[Pair]:
    """The functions that make the most of the jobs, and those that do so with the volume of time; none of one resource.

    Of many jobs, some are looked at.
    """
    some = slice(None, None, -(-len(nodes) // MOST_COMPARED))
    of, width = times.classes.of[some], len(times.classes.sizes)
    tried: list[tuple[float, Pair]] = []
    for first, second in permutations(resources, 2):
        x, y = first.ticks()[some], second.ticks()[some]
        for large in LARGE:
            values = pair_values(x, y, large, RATIOS[:, None]) * nodes[some]
            by_time = np.stack([np.bincount(of, weights=row, minlength=width) for row in values])
            products = by_time @ times.scales.values.T
            products[:, 0] = values @ times.shares[some]
            at = divmod(int(products.argmax()), products.shape[1])
            for row, time in (at, (int(products[:, 0].argmax()), 0)):
                ratio = float(RATIOS[row])
                pair = Pair(first=first, second=second, large=large, ratio=ratio, time=time)
                tried.append((float(products[row, time]), pair))
    volumes = [t for t in tried if t[1].time == 0]
    return [max(group, key=lambda t: t[0])[1] for group in (tried, volumes) if group]
