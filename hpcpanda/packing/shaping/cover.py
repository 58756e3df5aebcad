"""Which rectangles cover a staircase of holes best, when only so many may be used. Pure, exact.

Holes in order of length, the longest first, are a staircase. A rectangle takes nodes that lie side by side in it, for
as long as the shortest of them lasts: any other choice of nodes can be exchanged for such a one without loss, since a
node that lasts longer serves wherever a shorter one does. So the best cover is a best cut of a line into at most so
many pieces, which dynamic programming finds (as for optimal histograms: Jagadish et al., VLDB 1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import Final

import numpy as np

from hpcpanda.packing.shaping.value import Prospect
from hpcpanda.packing.tables import Floats

_GAIN: Final = 1.02
"""Cutting allocations smaller against preemption must bring so much."""
_SPLIT_SHARE: Final = 4
"""It may use one in so many of the slots: nodes that become free later need some."""
MOST_CUTS: Final = 400
"""Of more possible cuts only the first are looked at: those of the longest holes."""
_NEVER: Final = -np.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Nodes that are free for the same time, and what an allocation on them would be."""

    nodes: int
    length: float
    """Seconds until the hole ends; infinity for no known end."""
    walltime_s: float
    """To ask for; 0 when the hole is too short for any."""
    life: float
    """Seconds until the allocation has ended for certain."""
    cut: bool = False
    """It is then preempted, for the hole ends before the walltime."""
    takers: int
    """Nodes that the work at hand whose pieces fit can keep busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rectangle:
    """Nodes side by side in the staircase."""

    first: int
    """Nodes of longer holes before it."""
    nodes: int
    step: int
    """The shortest step that it reaches into."""
    useful: float
    """Expected useful node-seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a cover has to keep to."""

    rectangles: int
    """At most so many."""
    nodes: int
    """Of all together, at most."""
    fewest_nodes: int = 1
    most_nodes: int | None = None
    """Of one, at most."""
    least_share: float = 0.0
    """Of the time that one is expected to be held, this share must be useful."""
    price: float = 0.0
    """Useful node-seconds that a rectangle must add to be worth asking for."""


def cover(steps: tuple[Step, ...], terms: Terms, prospect: Prospect) -> tuple[Rectangle, ...]:
    """The rectangles of the largest useful sum, less the price of each; of equal ones the fewest."""
    wide = _cover(steps, terms, prospect)
    if prospect.preemptions_per_node_hour <= 0:
        return wide
    best, worth = wide, _worth(wide, terms)
    parts, total = 2, min(terms.nodes, sum(s.nodes for s in steps))
    while parts <= min(max(len(wide), terms.rectangles // _SPLIT_SHARE), total):
        most = max(-(-total // parts), terms.fewest_nodes)
        if terms.most_nodes is None or most < terms.most_nodes:
            narrow = _cover(steps, _narrowed(terms, most), prospect)
            if best and _worth(narrow, terms) <= _GAIN * worth:
                break
            best, worth = narrow, _worth(narrow, terms)
        parts *= 2
    return best


def _narrowed(terms: Terms, most: int) -> Terms:
    return Terms(
        rectangles=terms.rectangles,
        nodes=terms.nodes,
        fewest_nodes=terms.fewest_nodes,
        most_nodes=most,
        least_share=terms.least_share,
        price=terms.price,
    )


def _worth(rectangles: tuple[Rectangle, ...], terms: Terms) -> float:
    return sum(r.useful - terms.price for r in rectangles)


def _cover(steps: tuple[Step, ...], terms: Terms, prospect: Prospect) -> tuple[Rectangle, ...]:
    cuts = _cuts(steps, terms)
    if len(cuts) < 2:
        return ()
    values = _values(steps, cuts, terms, prospect)
    pieces = _any_number(values, terms.price)
    if len(pieces) > terms.rectangles:
        pieces = _at_most(values, terms.price, terms.rectangles)
    ends = np.cumsum([s.nodes for s in steps])
    return tuple(
        Rectangle(
            first=cuts[i],
            nodes=cuts[j] - cuts[i],
            step=int(np.searchsorted(ends, cuts[j])),
            useful=float(values[i, j]),
        )
        for i, j in pieces
    )


def _cuts(steps: tuple[Step, ...], terms: Terms) -> list[int]:
    """Where the line may be cut: at the ends of steps, and as far from any cut as one rectangle may reach."""
    ends, at, usable = [], 0, True
    for step in steps:
        usable = usable and step.walltime_s > 0
        if not usable or at >= terms.nodes:
            break
        at = min(at + step.nodes, terms.nodes)
        ends.append(at)
    cuts = {0, *ends}
    if terms.most_nodes is not None and ends:
        for begin in [0, *ends]:
            reach = min(at, begin + terms.most_nodes * terms.rectangles)
            cuts.update(range(begin, reach + 1, terms.most_nodes))
    return sorted(cuts)[:MOST_CUTS]


def _values(steps: tuple[Step, ...], cuts: list[int], terms: Terms, prospect: Prospect) -> Floats:
    """Useful node-seconds of the rectangle from each cut to each later one; minus infinity where there may be none."""
    at = np.array(cuts, dtype=np.int64)
    ends = np.cumsum([s.nodes for s in steps])
    step = np.searchsorted(ends, at[1:])
    life = np.array([s.life for s in steps])[step]
    cut = np.array([float(s.cut) for s in steps])[step]
    takers = np.array([s.takers for s in steps], dtype=np.int64)[step]
    nodes = at[None, 1:] - at[:-1, None]
    asked = np.maximum(nodes, 1)
    if prospect.preemptions_per_node_hour > 0:
        useful, held = prospect.useful(asked, life, cut=cut), prospect.held(asked, life)
    else:
        one = np.ones(1, dtype=np.int64)
        useful, held = prospect.useful(one, life, cut=cut), life
    most = terms.most_nodes if terms.most_nodes is not None else terms.nodes
    may = (nodes >= terms.fewest_nodes) & (nodes <= most) & (takers > 0)
    may &= (useful > 0) & (useful >= terms.least_share * held)
    values: Floats = np.full((len(cuts), len(cuts)), _NEVER)
    values[:-1, 1:] = np.where(may, np.minimum(asked, takers) * useful, _NEVER)
    return values


def _any_number(values: Floats, price: float) -> list[tuple[int, int]]:
    """The best cut into any number of pieces, each at a price; what is left at the end is not used."""
    columns: list[list[float]] = (values - price).T.tolist()
    best, count, came = [0.0], [0], [-1]
    for column in columns[1:]:
        sums = list(map(add, best, column))  # as long as ``best``: of the cuts before
        top = max(sums)
        start = sums.index(top)
        if top == _NEVER:
            best.append(_NEVER)
            count.append(0)
            came.append(-1)
            continue
        if sums.count(top) > 1:
            start = min((i for i, value in enumerate(sums) if value == top), key=count.__getitem__)
        best.append(top)
        count.append(count[start] + 1)
        came.append(start)
    return _chain(came, best.index(max(best)))


def _at_most(values: Floats, price: float, pieces: int) -> list[tuple[int, int]]:
    """The same with so many pieces at most."""
    size = len(values)
    priced = values - price
    best: Floats = np.full(size, _NEVER)
    best[0] = 0.0
    came: list[list[int]] = []
    top, top_end, top_pieces = 0.0, 0, 0
    for number in range(1, pieces + 1):
        sums = best[:, None] + priced
        start = sums.argmax(axis=0)
        best = sums[start, np.arange(size)]
        came.append(start.tolist())
        end = _first_best(best)
        if best[end] > top:
            top, top_end, top_pieces = float(best[end]), end, number
    chosen: list[tuple[int, int]] = []
    end = top_end
    for number in range(top_pieces, 0, -1):
        begin = came[number - 1][end]
        chosen.append((begin, end))
        end = begin
    return chosen[::-1]


def _first_best(best: Floats) -> int:
    return int(best.argmax())


def _chain(came: list[int], end: int) -> list[tuple[int, int]]:
    stops = [end]
    while came[stops[-1]] >= 0:
        stops.append(came[stops[-1]])
    return list(pairwise(stops[::-1]))
