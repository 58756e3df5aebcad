"""Jobs that take part of a node, grouped by what they take: how the next one to start is found fast. Pure; NumPy only.

Jobs of equal demand, or nearly equal where there are too many different ones, make a class, sorted by time. What is asked
of it again and again: which class suits this free room best, and which of its jobs is the longest that ends in time.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcpanda.packing.tables import Floats, Ints

MOST_CLASSES = 384
"""Beyond it, demands are grouped coarser: a choice looks at every class."""
_LOOKS = 8
"""Classes that are looked at closer, at most, before a job is taken."""
_PATIENCE = 0.9
"""Factor to the rank of a class each time that it is found to leave time over: others get their turn."""
_TOLERANCE = 0.005
"""Share of the longest job's time that may be left over where nothing fits better."""
_RATIOS = (1.02, 1.04, 1.07, 1.1, 1.15, 1.2, 1.3, 1.5)
_COARSER = ((64, _RATIOS), (16, (*_RATIOS, 2.0, 4.0, 1e6)))
"""A dimension of so few different demands keeps them, and the others are grouped by steps of these ratios.

Where cores are rounded, a gap of 20 of them is filled by a job of 18: 2 % of the nodes on mixes of many core counts.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """How jobs are ranked for a free room; the higher the rank, the sooner a job is taken.

    ``(demand . free)^size * time^length``: the dot product of Panigrahy, Talwar, Uyeda and Wieder (Heuristics for vector bin
    packing, 2011), in shares of a node and weighted by how scarce each dimension is, with time as one more dimension.
    """

    size: float = 1.0
    length: float = 1.0
    scarcity: float = 2.0
    """Power of a dimension's share of use among its weights; 0: all dimensions weigh the same."""
    rare: float = 0.2
    """Quantile of the jobs' times: shorter jobs are kept for gaps that would be left, and none is made for them."""
    first: float = 0.0
    """Power of time by which the first job of an empty node is ranked once more: long ones go first, while there is a choice of
    jobs to put beside and after them."""
    batch: float = 0.5
    """Share of a room that jobs of one class may take before all classes are ranked again."""


def group(demand: Floats, most: int = MOST_CLASSES) -> Ints:
    """The class of each job: by equal demand, or by steps of a geometric scale that is as fine as ``most`` allows."""
    codes = [np.unique(column, return_inverse=True)[1] for column in demand.T]
    labels = _combined(codes)
    if labels.max(initial=0) < most:
        return labels
    logs = [np.log(np.maximum(column, 1e-9)) for column in demand.T]
    for few, ratios in _COARSER:
        exact = [code.max(initial=0) < few for code in codes]
        for ratio in ratios:
            steps = [
                code if kept else np.ceil(log / np.log(ratio)).astype(np.int64)
                for code, log, kept in zip(codes, logs, exact, strict=True)
            ]
            labels = _combined([step - step.min() for step in steps])
            if labels.max() < most:
                return labels
    return labels


def _combined(codes: list[Ints]) -> Ints:
    key = np.zeros(len(codes[0]), dtype=np.int64)
    for code in codes:
        key = key * (int(code.max(initial=0)) + 1) + code
    labels: Ints = np.unique(key, return_inverse=True)[1]
    return labels


class JobClasses:
    """The jobs that wait, by class; each can be taken once."""

    def __init__(
        self,
        demand: Floats,
        seconds: Floats,
        capacity: Floats,
        ranking: Ranking,
        *,
        most: int = MOST_CLASSES,
    ) -> None:
        """Group jobs.

        Args:
            demand: jobs x dimensions.
            seconds: of each job.
            capacity: of a node, by dimension: the unit in which demands are compared.
            ranking: how jobs are ranked.
            most: classes, at most, where demands allow it.
        """
        labels = group(demand, most)
        order = np.lexsort((seconds, labels))
        sorted_labels = labels[order]
        count = int(labels.max(initial=-1)) + 1
        first = np.searchsorted(sorted_labels, np.arange(count))
        ordered = demand[order]
        times = seconds[order]
        self.left = len(order)
        """Jobs that wait."""
        self.demand: list[tuple[float, ...]] = list(map(tuple, ordered.tolist()))
        """Of each job, in the order of classes and times."""
        self.jobs: list[int] = order.tolist()
        """The job's number in the caller's table."""
        self.times: list[float] = times.tolist()
        self._low: list[int] = first.tolist()
        self._high: list[int] = [*self._low[1:], len(order)]
        self._bottom = list(self._low)
        self._top = [h - 1 for h in self._high]
        self._before = list(range(len(order)))
        """Union-find: a job that waits points at itself, a taken one towards the next shorter that waits."""
        self._upper = (
            np.maximum.reduceat(ordered, first, axis=0).T.copy() if count else np.zeros((demand.shape[1], 0))
        )
        self.upper: list[tuple[float, ...]] = list(map(tuple, self._upper.T.tolist()))
        """The most that a job of each class takes."""
        self.least: list[float] = demand.min(axis=0).tolist() if count else []
        """No job takes less, by dimension."""
        self.shortest = float(times.min(initial=np.inf))
        self.rare = float(np.quantile(times, ranking.rare)) if count else 0.0
        self.tolerance = _TOLERANCE * float(times.max(initial=0.0))
        self._longest = times[np.array(self._high, dtype=np.int64) - 1] if count else np.zeros(0)
        self._shortest = times[first] if count else np.zeros(0)
        share = (demand * seconds[:, None]).sum(axis=0) / np.maximum(capacity, 1e-9)
        weight = (share / max(float(share.max(initial=0.0)), 1e-9)) ** ranking.scarcity
        self._weight = weight / np.maximum(capacity, 1e-9) ** 2
        self._ranking = ranking
        self.batch = ranking.batch

    def rank(self, free: Floats, length: Floats) -> Floats:
        """For each free room (rooms x dimensions) of some length, the rank of each class; 0 where it does not fit.

        It is the rank of the longest job that might be there: an upper bound.
        """
        upper = self._upper
        fit: NDArray[np.bool_] = self._shortest <= length[:, None]
        for i in range(len(upper)):
            fit &= upper[i] <= free[:, i, None]
        rank: Floats = (free * self._weight) @ upper
        time = np.minimum(self._longest, length[:, None])
        if self._ranking.size != 1.0:
            rank **= self._ranking.size
        if self._ranking.length != 1.0:
            time **= self._ranking.length
        rank *= time
        rank += 1e-12
        rank *= fit
        return rank

    def first(self, rank: Floats, label: int, length: float) -> int:
        """The class of which an empty node gets its first job, from the ranks of its room and the class that ranks first."""
        if not self._ranking.first:
            return label
        return int((rank * np.minimum(self._longest, length) ** self._ranking.first).argmax())

    def settle(self, rank: Floats, label: int, length: float, *, fresh: bool) -> tuple[int, float]:
        """The class of which a job is to be taken, from the ranks of one room and the class that ranks first in them.

        Ranks are upper bounds, so the class that comes first is looked at closer until one stays first.
        Also tells the length up to which its job is to be: all of it where that leaves (nearly) nothing, less where
        so little would be left that only the rare short jobs could use it. In a fresh room, in which nothing has run
        before, the longest jobs are taken all the same: they fit into no other.
        """
        if fresh:
            return label, length
        near = length - self.tolerance
        second = -1
        for _ in range(_LOOKS):
            longest = self._longest.item(label)
            if longest > length:
                index = bisect_right(self.times, length, self._low[label], self._high[label]) - 1
                index = self._waiting(index) if index >= self._low[label] else -1
                longest = self.times[index] if index >= self._low[label] else 0.0
            if longest >= near or 0.0 < longest <= length - self.rare:
                return label, length
            if second < 0 and longest > 0.0 and self._shortest.item(label) <= length - self.rare:
                second = label
            rank[label] *= (longest / length) ** self._ranking.length * _PATIENCE
            best = int(rank.argmax())
            if best == label or rank.item(best) <= 0.0:
                break  # the last of all that fit may just have been taken for another room
            label = best
        if second >= 0:
            return second, length - self.rare
        return label, length

    def take(self, label: int, length: float) -> int:
        """The longest job of a class that is no longer than ``length``; -1 when there is none."""
        low = self._low[label]
        before = self._before
        index = bisect_right(self.times, length, low, self._high[label]) - 1
        if index < low:
            return -1
        index = self._waiting(index)
        if index < low:
            return -1
        before[index] = index - 1
        self.left -= 1
        if index == self._top[label]:
            top = self._waiting(index - 1) if index > low else -1
            self._top[label] = top
            if top < low:
                self._longest[label] = 0.0
                self._shortest[label] = np.inf
                return index
            self._longest[label] = self.times[top]
        if index == self._bottom[label]:
            bottom = index + 1
            while before[bottom] != bottom:
                bottom += 1
            self._bottom[label] = bottom
            self._shortest[label] = self.times[bottom]
        return index

    def _waiting(self, index: int) -> int:
        """The job at or before an index that waits; below the class's first when there is none."""
        before = self._before
        while index >= 0 and before[index] != index:
            above = before[index]
            if above >= 0:
                before[index] = before[above]
            index = above
        return index

    def remaining(self) -> list[int]:
        """Numbers of the jobs that were not taken."""
        return [job for i, job in enumerate(self.jobs) if self._before[i] == i]
