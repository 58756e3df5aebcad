"""How few nodes of one kind are enough for jobs within a time. Pure.

One sweep over as many nodes as it takes, then repair: the nodes that are used worst are emptied and filled again by other
rankings, as long as a budget of placements lasts (ruin and recreate, Schrimpf et al. 2000).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, cycle
from itertools import count as count_from

import numpy as np
from numpy.random import Generator

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.packing.placing.bins import binned
from hpcpanda.packing.placing.chains import chained
from hpcpanda.packing.placing.classes import JobClasses, Ranking
from hpcpanda.packing.placing.sweep import Booking, Filled, Room, Vector, rooms_of, sweep
from hpcpanda.packing.placing.wide import WidePlace, fewest_nodes
from hpcpanda.packing.tables import Floats, Ints, JobTable, NodeTable, Placement

EFFORT = 40_000
"""Placements that are tried for an improvement, unless said otherwise."""
_CLASSES = 1024
"""Of demands that are kept apart: more than :func:`place` does, which has no second try but is faster."""
_VAIN = 300
"""Turns in vain after which the search ends, whatever effort is left: few jobs take little of it each time."""
_BINNED = 20_000
"""Most jobs for which sets that fill a node are searched."""
_WHOLE = (
    Ranking(size=2.0, first=4.0, scarcity=20.0, rare=0.0),
    Ranking(first=2.0),
    Ranking(size=3.0, first=4.0, scarcity=20.0, rare=0.0, batch=0.01),
)
"""By which all nodes are filled again: where one dimension alone is scarce, the others are not to count, and where jobs are
large, the long ones must come first."""
_RANKINGS = (
    Ranking(),
    Ranking(size=2.0),
    Ranking(rare=0.0),
    Ranking(length=2.0),
    Ranking(size=0.5, rare=0.1),
    Ranking(first=4.0, rare=0.0),
    Ranking(size=4.0, rare=0.0),
    Ranking(length=4.0, rare=0.0),
    Ranking(scarcity=0.0, rare=0.35),
    Ranking(size=0.5, length=2.0, scarcity=3.0),
)
_SHARES = (0.1, 0.2, 0.05, 0.4)
"""Of the nodes, emptied at a time."""


def nodes_needed(
    jobs: JobTable, kind: NodeTable, seconds: float, *, effort: int = EFFORT
) -> tuple[int, Placement]:
    """Find few nodes of one kind on which all jobs are done within a time.

    Priority, not_before, deadline and affinity are not looked at: all jobs are done by the end.

    Args:
        jobs: what is to be done.
        kind: the kind of node: the first row; its times are not looked at.
        seconds: time that the nodes are held, from 0.
        effort: placements to try for an improvement: more of it, fewer nodes, and more time. 0: one sweep.

    Returns:
        The number of nodes, and the places on nodes ``0 ... number - 1``.

    Raises:
        InvalidValue: a job does not fit even by itself.
    """
    jobs.check()
    kind.check()
    if not len(kind):
        raise InvalidValue("kind", "give the kind of node as a table of one row")
    demand = jobs.demand()
    capacity = kind.capacity()[0]
    too_large = (demand > capacity).any(axis=1) | (jobs.seconds > seconds)
    if too_large.any():
        first = int(np.flatnonzero(too_large)[0])
        raise InvalidValue(
            "jobs", f"job {first} does not fit on an empty node of this kind within {seconds:g} s"
        )
    return _Search(jobs, demand, capacity, seconds).best(effort)


@dataclass(slots=True)
class _Search:
    """One search: what is given, and the best found."""

    _jobs: JobTable
    _demand: Floats
    _capacity: Floats
    _seconds: float

    def best(self, effort: int) -> tuple[int, Placement]:
        jobs = self._jobs
        node = np.full(len(jobs), -1, dtype=np.int64)
        start = np.zeros(len(jobs))
        wide, single = np.flatnonzero(jobs.nodes > 1), np.flatnonzero(jobs.nodes == 1)
        held, places = fewest_nodes(jobs.nodes[wide], jobs.seconds[wide], self._seconds)
        others, gaps = self._held(places, wide, node, start)
        active = np.flatnonzero(self._demand[single].max(axis=0, initial=0.0) > 0)
        if not len(active):
            active = np.arange(1)
        fill = _Singles(
            job=single,
            demand=self._demand[np.ix_(single, active)],
            seconds=jobs.seconds[single],
            capacity=self._capacity[active],
            length=self._seconds,
            gaps={n: [(s, e, tuple(self._capacity[active].tolist())) for s, e in g] for n, g in gaps.items()},
            held=held,
        )
        count = fill.run(effort)
        node[single], start[single] = fill.node, fill.start
        return count, Placement(node=node, start=start, others=others)

    def _held(
        self, places: list[WidePlace], wide: Ints, node: Ints, start: Floats
    ) -> tuple[dict[int, tuple[int, ...]], dict[int, list[tuple[float, float]]]]:
        """Note the places of jobs of several nodes: their other nodes, and by node the times that are taken."""
        others: dict[int, tuple[int, ...]] = {}
        taken: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
        for place in places:
            job = int(wide[place.job])
            node[job], start[job] = place.nodes[0], place.start
            others[job] = place.nodes[1:]
            for n in place.nodes:
                taken[n].append((place.start, place.start + float(self._jobs.seconds[job])))
        return others, taken


@dataclass(slots=True)
class _Singles:
    """Jobs of one node or part of it, on as few nodes more as possible."""

    job: Ints
    demand: Floats
    seconds: Floats
    capacity: Floats
    length: float
    gaps: dict[int, list[Booking]]
    held: int
    """Nodes that jobs of several nodes hold for some time: these stay."""
    node: Ints = field(init=False)
    start: Floats = field(init=False)

    def run(self, effort: int) -> int:
        """Place all, improve while effort lasts; the number of nodes."""
        every = np.arange(len(self.job))
        self.node = np.full(len(every), -1, dtype=np.int64)
        self.start = np.zeros(len(every))
        volume = (
            (self.demand * self.seconds[:, None]).sum(axis=0) / np.maximum(self.capacity, 1e-9) / self.length
        )
        busy = sum(end - start for booked in self.gaps.values() for start, end, _ in booked) / self.length
        bound = max(self.held, int(np.ceil(float(volume.max(initial=0.0)) + busy - 1e-9)))
        if not len(every):
            return self.held
        abreast = int(np.clip(bound / 48, 1, 32))
        self._note(every, self._sweep(every, count_from(), Ranking(), abreast=abreast))
        if effort > 0 and not self.held:
            self._start_otherwise(effort, bound)
        return self._improve(effort, bound, volume.argmax().item())

    def _start_otherwise(self, effort: int, bound: int) -> None:
        """Take what special cases allow, if it is fewer nodes."""
        count = int(self.node.max()) + 1
        if count <= bound:
            return
        if self._all_overlap():
            if len(self.job) <= _BINNED:
                node = binned(self.demand, self.capacity, bound=bound, steps=effort)
                if node.max() + 1 < count:
                    self.node, self.start = node, np.zeros(len(node))
            return
        found = chained(self.demand, self.seconds, self.capacity, self.length, below=count)
        if found is not None:
            self.node, self.start = found.node, found.start

    def _all_overlap(self) -> bool:
        """Whether no job can be done after another."""
        shortest = np.sort(self.seconds)[:2]
        return len(shortest) < 2 or float(shortest.sum()) > self.length

    def _sweep(self, jobs: Ints, nodes: Iterator[int], ranking: Ranking, *, abreast: int = 1) -> Filled:
        classes = JobClasses(self.demand[jobs], self.seconds[jobs], self.capacity, ranking, most=_CLASSES)
        capacity: Vector = tuple(self.capacity.tolist())
        rooms: Iterator[Room] = (
            room for n in nodes for room in rooms_of(n, 0.0, self.length, capacity, self.gaps.get(n, []))
        )
        return sweep(classes, rooms, abreast=abreast)

    def _note(self, jobs: Ints, filled: Filled) -> None:
        index = jobs[np.array(filled.job, dtype=np.int64)]
        self.node[index] = filled.node
        self.start[index] = filled.start

    def _improve(self, effort: int, bound: int, scarce: int) -> int:
        """Fill all nodes again where effort is enough for it, then the worst used, by each ranking in turn."""
        used = self._used(scarce)
        choice = np.random.default_rng(0)
        whole = _WHOLE if effort >= len(_WHOLE) * len(self.job) else ()
        vain = 0
        for turn, ranking in enumerate(chain(whole, cycle(_RANKINGS))):
            if len(used) <= max(bound, self.held) or effort <= 0 or vain >= _VAIN:
                break
            vain += 1
            chosen = self._choose(used, turn - len(whole), choice)
            jobs = np.flatnonzero(np.isin(self.node, chosen))
            effort -= max(1, len(jobs))
            filled = self._sweep(jobs, iter(chosen.tolist()), ranking)
            if len(filled.job) == len(jobs) and self._better(jobs, filled, used, chosen, scarce):
                self._note(jobs, filled)
                before, used = used, self._used(scarce)
                if len(used) < len(before) or (used**2).sum() > (before**2).sum() * (1 + 1e-9):
                    vain = 0
        return len(used)

    def _choose(self, used: Floats, turn: int, choice: Generator) -> Ints:
        """Nodes to be emptied: all before turn 0, then some of the worst used, and others as well after a while."""
        if turn < 0:
            return np.arange(len(used))
        share = _SHARES[turn // len(_RANKINGS) % len(_SHARES)]
        noise = choice.random(len(used)) * (0.3 if turn >= len(_RANKINGS) else 0.0)
        worst = np.argsort(used + noise, kind="stable")[: max(3, int(len(used) * share))]
        chosen: Ints = worst[np.lexsort((worst, worst >= self.held))]
        return chosen

    def _better(self, jobs: Ints, filled: Filled, used: Floats, worst: Ints, scarce: int) -> bool:
        """Fewer nodes, or the same with use gathered on some of them."""
        index = jobs[np.array(filled.job, dtype=np.int64)]
        place = {n: i for i, n in enumerate(worst.tolist())}
        work = np.bincount(
            [place[n] for n in filled.node],
            weights=self._work(scarce)[index],
            minlength=len(worst),
        )
        removable = worst >= self.held
        before, after = used[worst], work + self._busy(worst)
        empty_before, empty_after = ((x[removable] <= 0).sum() for x in (before, after))
        if empty_after != empty_before:
            return bool(empty_after > empty_before)
        return bool((after**2).sum() >= (before**2).sum())

    def _work(self, scarce: int) -> Floats:
        work: Floats = (
            self.demand[:, scarce] * self.seconds / max(float(self.capacity[scarce]), 1e-9) / self.length
        )
        return np.maximum(work, 1e-9)

    def _busy(self, nodes: Ints) -> Floats:
        return np.array(
            [sum(e - s for s, e, _ in self.gaps.get(n, [])) / self.length for n in nodes.tolist()]
        )

    def _used(self, scarce: int) -> Floats:
        """Share of each node that is used, after those that became empty were taken out."""
        used, numbers = np.unique(np.concatenate([np.arange(self.held), self.node]), return_inverse=True)
        self.node = numbers[self.held :].astype(np.int64)
        work = np.bincount(self.node, weights=self._work(scarce), minlength=len(used))
        return work + self._busy(np.arange(len(used)))
