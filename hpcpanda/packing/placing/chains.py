"""Jobs of which a node runs the same number at any time: chains of jobs in time first, then chains to nodes. Pure.

Where every job takes the same amount of a resource, say one core, a node is so many slots. Which jobs follow each other in
a slot is one-dimensional bin packing of times, for which best-fit decreasing is good (at most 11/9 of the optimum, Johnson
et al., "Worst-case performance bounds for simple one-dimensional packing algorithms", 1974, and far better where a slot
takes two jobs or three). The other resources are balanced when the chains are dealt to nodes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from hpcpanda.packing.tables import Floats, Ints

_POINTS = 24
"""Times at which chains are compared when they are dealt; whether a node is overfull is then looked at exactly."""
_TABLE = 16
"""Chains, and nodes, that are matched at a time."""
_POWER = 16
"""Of levels in the price of a node: nearly the highest level alone counts."""
_REPAIRS = 8
"""Rounds in which nodes that are overfull give a chain away."""
_MORE = 3
"""Nodes more than the slots ask for that are tried when other resources do not fit."""
_SAME = 1e-6
"""Seconds, to which times are exact."""


@dataclass(frozen=True, slots=True)
class Chained:
    """Places of all jobs on few nodes."""

    count: int
    node: Ints
    start: Floats


def chained(
    demand: Floats, seconds: Floats, capacity: Floats, length: float, *, below: int
) -> Chained | None:
    """Place jobs of equal demand for some resource on empty nodes.

    Args:
        demand: jobs x dimensions; each fits a node.
        seconds: of each job, none longer than ``length``.
        capacity: of a node.
        length: time that nodes are free.
        below: more nodes than may be used.

    Returns:
        The places; None where no resource is asked for alike, or no fewer nodes are enough.
    """
    alike = np.flatnonzero((demand == demand[0]).all(axis=0) & (demand[0] > 0))
    if not len(alike):
        return None
    slots = int((capacity[alike] // demand[0, alike]).min())
    chain, start = chains(seconds, length)
    share = np.delete(demand / np.maximum(capacity, 1e-9), alike, axis=1)
    deal = _Deal(chain, start, seconds, share, length, slots)
    fewest = -(-deal.total // slots)
    for count in range(fewest, min(fewest + _MORE, below)):
        if deal.on(count):
            return Chained(count, deal.node[chain], deal.begin())
    return None


def chains(seconds: Floats, length: float) -> tuple[Ints, Floats]:
    """Let jobs follow each other, the longest first, each where it leaves the least time; chain and start of each."""
    chain = np.zeros(len(seconds), dtype=np.int64)
    start = np.zeros(len(seconds))
    left: list[tuple[float, int]] = []
    count = 0
    times = seconds.tolist()
    for job in np.argsort(-seconds, kind="stable").tolist():
        time = times[job]
        index = bisect_left(left, (time, -1))
        if index < len(left):
            rest, number = left.pop(index)
        else:
            rest, number = length, count
            count += 1
        chain[job], start[job] = number, length - rest
        insort(left, (rest - time, number))
    return chain, start


class _Deal:
    """Chains dealt to nodes so that what jobs take besides their slots is even at all times."""

    def __init__(
        self, chain: Ints, start: Floats, seconds: Floats, share: Floats, length: float, slots: int
    ) -> None:
        self.total = int(chain.max()) + 1
        self.node: Ints = np.zeros(self.total, dtype=np.int64)
        self._mirrored = np.zeros(self.total, dtype=np.bool_)
        """Whether a chain runs backwards in time."""
        self._chain, self._start, self._seconds, self._share = chain, start, seconds, share
        self._length, self._slots = length, slots
        self._use = np.zeros((self.total, _POINTS, share.shape[1]))
        """Of each chain, at some times, as a share of a node."""
        for point in range(_POINTS):
            time = (point + 0.5) / _POINTS * length
            runs = np.flatnonzero((start <= time) & (time < start + seconds))
            self._use[chain[runs], point] = share[runs]
        self._heaviest = np.argsort(-self._use.max(axis=(1, 2), initial=0.0), kind="stable")

    def on(self, count: int) -> bool:
        """Deal to so many nodes; says whether all fit."""
        self._level = np.zeros((count, *self._use.shape[1:]))
        for first in range(0, self.total, count):
            dealt = self._heaviest[first : first + count]
            nodes = np.argsort(self._level.max(axis=(1, 2), initial=0.0), kind="stable")
            for i in range(0, len(dealt), _TABLE):
                self._give(dealt[i : i + _TABLE], nodes[i : i + _TABLE])
        for _ in range(_REPAIRS):
            over = self._overfull()
            if not len(over):
                return True
            for node in over.tolist():
                if not self._move_one(node):
                    return False
        return not len(self._overfull())

    def begin(self) -> Floats:
        """Start of each job."""
        late = np.maximum(self._length - self._start - self._seconds, 0.0)
        return np.where(self._mirrored[self._chain], late, self._start)

    def _give(self, dealt: Ints, nodes: Ints) -> None:
        """One chain to each of as many nodes, the heaviest chain first, forwards or backwards, where it is best."""
        use = self._use[dealt]
        base = self._level[nodes][:, None]
        ways = np.stack([base + use, base + use[:, ::-1]])
        price = _price(ways)
        back = price[1] < price[0]
        price = price.min(axis=0) - _price(base)
        for i, chain in enumerate(dealt.tolist()):
            at = int(price[:, i].argmin())
            price[at] = np.inf
            self.node[chain], self._mirrored[chain] = nodes[at], back[at, i]
            self._level[nodes[at]] = ways[int(back[at, i]), at, i]

    def _move_one(self, node: int) -> bool:
        """Move the heaviest chain of a node to the best one that has a slot; says whether there is one."""
        slots = np.bincount(self.node, minlength=len(self._level))
        slots[node] = self._slots
        others = np.flatnonzero(slots < self._slots)
        here = np.flatnonzero(self.node == node)
        if not len(others):
            return False
        chain = int(here[self._use[here].max(axis=(1, 2), initial=0.0).argmax()])
        use = self._use[chain]
        self._level[node] -= use[::-1] if self._mirrored[chain] else use
        ways = np.stack([self._level[others] + use, self._level[others] + use[::-1]])
        back, at = divmod(int(_price(ways).argmin()), len(others))
        self.node[chain], self._mirrored[chain] = others[at], bool(back)
        self._level[others[at]] = ways[back, at]
        return True

    def _overfull(self) -> Ints:
        """Nodes that have too much at any time."""
        start = self.begin()
        times = np.concatenate([start + _SAME, start + self._seconds])
        nodes = np.tile(self.node[self._chain], 2)
        order = np.lexsort((times, nodes))
        level = np.cumsum(np.concatenate([self._share, -self._share])[order], axis=0)
        over: Ints = np.unique(nodes[order][(level > 1 + 1e-9).any(axis=1)])
        return over


def _price(level: Floats) -> Floats:
    """How full nodes are, the fullest times first of all."""
    price: Floats = (level**_POWER).sum(axis=(-1, -2))
    return price
