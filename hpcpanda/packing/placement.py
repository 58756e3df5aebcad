"""Placing jobs on nodes and in time: which job runs where, and when. Pure.

The order of decisions, each final for those that come after:

1. Priorities, highest first. A lower priority gets what the higher ones left, so it never costs them a place.
2. Jobs of several nodes, which need the most room at once.
3. Jobs that may not begin, or must be done, at times of their own; the most urgent first.
4. All others, by filling node after node (:mod:`hpcpanda.packing.placing.sweep`), then one by one into gaps left.

The method, and how good it is, are told in docs/explanation/packing.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hpcpanda.packing.placing.book import Book
from hpcpanda.packing.placing.classes import JobClasses, Ranking
from hpcpanda.packing.placing.needed import EFFORT, nodes_needed
from hpcpanda.packing.placing.plan import Place, Plan
from hpcpanda.packing.placing.sweep import Room, rooms_of, sweep
from hpcpanda.packing.placing.wide import place_wide
from hpcpanda.packing.tables import ANYWHERE, Floats, Ints, JobTable, NodeTable, Placement

__all__ = ["EFFORT", "Place", "Plan", "nodes_needed", "place"]

_FEW = 32
"""So many jobs are placed one by one, in the exact way."""
_TRIES = 64
"""Jobs left over that are tried one by one before the rest is believed not to fit either."""


def place(jobs: JobTable, nodes: NodeTable, *, tries: int = _TRIES) -> Placement:
    """Place jobs on nodes.

    Equal input gives equal output. Times are exact to a microsecond.

    Args:
        jobs: what is to be placed.
        nodes: where, and for how long.
        tries: attempts, in each priority, to fit jobs into gaps that the filling of nodes left, one by one.

    Raises:
        InvalidValue: a column has a value that no job or node can have.
    """
    jobs.check()
    nodes.check()
    book = Book(jobs, nodes)
    if len(nodes):
        for level in _levels(jobs.priority):
            _Level(book, level, tries).place()
        _send_home(book)
    return book.placement()


def _levels(priority: Ints) -> Iterator[Ints]:
    """The jobs of each priority, highest first."""
    order = np.argsort(-priority, kind="stable")
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(priority[order])) + 1)


class _Level:
    """The jobs of one priority."""

    def __init__(self, book: Book, members: Ints, tries: int) -> None:
        self._book = book
        self._members = members
        self._tries = tries
        self._failed: list[int] = []
        """Jobs that did not fit at any time: what needs no less of anything does not fit either."""

    def place(self) -> None:
        book, members = self._book, self._members
        jobs, nodes = book.jobs, book.nodes
        bound = (jobs.not_before[members] > nodes.free_from.min()) | (
            jobs.deadline[members] < nodes.free_until.max()
        )
        wide = jobs.nodes[members] > 1
        free = members[wide & ~bound]
        if len(free) >= _FEW and not book.count:
            free = self._wide(free)
        self._one_by_one(self._by_size(free), limit=len(free))
        urgent = members[bound]
        key = (jobs.not_before[urgent], -self._size(urgent), jobs.deadline[urgent])
        self._one_by_one(urgent[np.lexsort(key)], limit=len(urgent))
        loose = members[~wide & ~bound]
        loose = self._near(loose)
        if len(loose) >= max(_FEW, book.count // 100):
            self._one_by_one(self._by_size(self._sweep(loose)), limit=self._tries)
        else:
            self._one_by_one(self._by_size(loose), limit=len(loose))

    def _size(self, jobs: Ints) -> Floats:
        """Share of the largest node, and time, that jobs take."""
        book = self._book
        share = book.demand[jobs] / np.maximum(book.nodes.capacity().max(axis=0), 1e-9)
        size: Floats = share.max(axis=1, initial=0.0) * book.jobs.seconds[jobs] * book.jobs.nodes[jobs]
        return size

    def _by_size(self, jobs: Ints) -> Ints:
        return jobs[np.argsort(-self._size(jobs), kind="stable")]

    def _one_by_one(self, jobs: Ints, *, limit: int) -> None:
        """Insert jobs in their order until so many were tried in vain."""
        book = self._book
        hopeless = np.zeros(len(jobs), dtype=np.bool_)
        for failed in self._failed:
            hopeless |= self._no_less(jobs, failed)
        for i, job in enumerate(jobs.tolist()):
            if limit <= 0:
                return
            if hopeless[i] or book.insert(job):
                continue
            limit -= 1
            if book.jobs.not_before[job] <= book.nodes.free_from.min() and book.jobs.deadline[job] == np.inf:
                self._failed.append(job)
                hopeless[i:] |= self._no_less(jobs[i:], job)

    def _no_less(self, jobs: Ints, than: int) -> NDArray[np.bool_]:
        """Which jobs need no less of anything than another."""
        book = self._book
        nodes, least = book.jobs.nodes[jobs], int(book.jobs.nodes[than])
        found: NDArray[np.bool_] = (book.demand[jobs] >= book.demand[than]).all(axis=1)
        found &= book.jobs.seconds[jobs] >= book.jobs.seconds[than]
        found &= (nodes == least) | ((nodes > least) & (least > 1))
        return found

    def _wide(self, jobs: Ints) -> Ints:
        """Place jobs of several nodes on nodes that are alike; the jobs left over."""
        book = self._book
        capacity = book.nodes.capacity()
        alike: defaultdict[tuple[float, ...], list[int]] = defaultdict(list)
        rows = np.column_stack([capacity, book.nodes.free_from, book.nodes.free_until]).tolist()
        for node in _order(book.nodes).tolist():
            alike[tuple(rows[node])].append(node)
        for key, group in alike.items():
            fits = (book.demand[jobs] <= np.array(key[:-2])).all(axis=1)
            fits &= (book.jobs.nodes[jobs] <= len(group)) & (book.jobs.seconds[jobs] <= key[-1] - key[-2])
            here = jobs[fits]
            if not len(here):
                continue
            for found in place_wide(book.jobs.nodes[here], book.jobs.seconds[here], group, key[-2], key[-1]):
                book.note(int(here[found.job]), found.nodes, found.start)
            jobs = book.waiting(jobs)
        return jobs

    def _near(self, jobs: Ints) -> Ints:
        """Place jobs like which there is no other where their inputs are, if they can begin there; the others."""
        book = self._book
        wants = book.jobs.affinity[jobs]
        near = jobs[(wants >= 0) & (wants < len(book.nodes))]
        if not len(near):
            return jobs
        alone = near[~_twins(book, near)]
        soonest = float(book.nodes.free_from.min())
        for job in self._by_size(alone).tolist():
            book.insert_near(job, soonest)
        return book.waiting(jobs)

    def _sweep(self, jobs: Ints) -> Ints:
        """Fill node after node; the jobs left over."""
        book = self._book
        active = np.flatnonzero(book.demand[jobs].max(axis=0) > 0)
        active = active if len(active) else np.arange(1)
        capacity = book.nodes.capacity()
        demand = book.demand[np.ix_(jobs, active)]
        classes = JobClasses(demand, book.jobs.seconds[jobs], capacity[:, active].max(axis=0), Ranking())
        length = book.nodes.free_until - book.nodes.free_from
        there = (capacity[:, active] * length[:, None]).mean(axis=0)
        work = (demand * book.jobs.seconds[jobs, None]).sum(axis=0)
        needed = min(len(book.nodes), float((work / np.maximum(there, 1e-9)).max()))
        filled = sweep(classes, self._rooms(active), abreast=int(np.clip(needed / 48, 1, 32)))
        book.note_all(jobs[np.array(filled.job, dtype=np.int64)], filled.node, filled.start)
        return book.waiting(jobs)

    def _rooms(self, active: Ints) -> Iterator[Room]:
        book, nodes = self._book, self._book.nodes
        capacity = nodes.capacity()[:, active].tolist()
        columns = active.tolist()
        for node in _order(nodes).tolist():
            taken = [(s, e, tuple(d[i] for i in columns)) for s, e, d in book.bookings(node)]
            begin, end = float(nodes.free_from[node]), float(nodes.free_until[node])
            yield from rooms_of(node, begin, end, tuple(capacity[node]), taken)


def _order(nodes: NodeTable) -> Ints:
    """Nodes that have what is rare come last; of the same kind those that are free first come first."""
    order: Ints = np.lexsort((nodes.free_from, nodes.disk_mb, nodes.memory_mb, nodes.cores, nodes.gpus))
    return order


def _alike(book: Book, jobs: Ints) -> Ints:
    """Label jobs: those of one label could take each other's place."""
    table = book.jobs
    key = np.zeros(len(jobs), dtype=np.int64)
    limits = (table.seconds, table.priority, table.not_before, table.deadline, table.nodes)
    for column in (*book.demand[jobs].T, *(c[jobs] for c in limits)):
        codes = np.unique(column, return_inverse=True)[1]
        key = np.unique(key * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
    return key


def _twins(book: Book, jobs: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether another of the jobs is alike."""
    labels = _alike(book, jobs)
    several: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.bincount(labels)[labels] > 1
    return several


def _send_home(book: Book) -> None:
    """Exchange the places of jobs that are alike, so that more are where their inputs are: it costs nothing."""
    wants = book.jobs.affinity
    here = np.flatnonzero((book.node != ANYWHERE) & (book.jobs.nodes == 1))
    if not (wants[here] >= 0).any():
        return
    labels = _alike(book, here)
    order = np.argsort(labels, kind="stable")
    for group in np.split(here[order], np.flatnonzero(np.diff(labels[order])) + 1):
        if len(group) > 1 and (wants[group] >= 0).any():
            _exchange(book, group, wants)


def _exchange(book: Book, group: Ints, wants: Ints) -> None:
    starts: defaultdict[int, list[float]] = defaultdict(list)
    for job in group.tolist():
        starts[int(book.node[job])].append(float(book.start[job]))
    away: list[int] = []
    for job in group.tolist():
        home = starts.get(int(wants[job]))
        if home:
            book.node[job], book.start[job] = wants[job], home.pop()
        else:
            away.append(job)
    left = ((node, start) for node in sorted(starts) for start in starts[node])
    for job, (node, start) in zip(away, left, strict=True):
        book.node[job], book.start[job] = node, start
