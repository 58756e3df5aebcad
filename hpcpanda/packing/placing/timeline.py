"""What is free on every node at every time, exactly, and where one more job would start first. Pure; NumPy only.

The free capacity of a node is a row of cells, each from one time to the next. Rows are kept side by side in blocks, so that a
search looks at all nodes at once and needs no index that every change would have to keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from hpcpanda.packing.placing.sweep import Booking, Vector
from hpcpanda.packing.tables import ANYWHERE, Floats, Ints, NodeTable

_ROWS = 128
_SAME = 1e-6
"""Seconds; times nearer to each other are one time."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where and when a job could start."""

    node: int
    start: float


class _Block:
    """Nodes side by side: cell j of row i lasts from ``times[i, j]`` to ``times[i, j + 1]``.

    Cells past a row's last have no length and nothing free.
    """

    __slots__ = ("cells", "free", "most", "spare", "times")

    def __init__(self, begin: Floats, end: Floats, capacity: Floats) -> None:
        rows = len(begin)
        self.times = np.repeat(np.stack([begin, end], axis=1), [1, 8], axis=1)
        self.free = np.full((capacity.shape[1], rows, 8), -1.0)
        self.free[:, :, 0] = capacity.T
        self.cells: Ints = np.ones(rows, dtype=np.int64)
        self.most = capacity.T.copy()
        """The most that is free at any time: dimensions x nodes."""
        self.spare = capacity.T * (end - begin)
        """What is free, times seconds, over all time: dimensions x nodes."""

    def change(self, row: int, start: float, end: float, demand: Floats) -> None:
        """Take from a row between two times; a negative demand gives back."""
        first, last = self._split(row, start), self._split(row, end)
        self.free[:, row, first:last] -= demand[:, None]
        self._join(row)
        cells = int(self.cells[row])
        free = self.free[:, row, :cells]
        self.most[:, row] = free.max(axis=1)
        self.spare[:, row] = free @ np.diff(self.times[row, : cells + 1])

    def load(self, bookings: list[tuple[int, Booking]]) -> None:
        """Make rows, on which nothing is yet, from what is booked: row by booking."""
        row = np.array([r for r, _ in bookings], dtype=np.int64)
        begin, until = self.times[:, 0].copy(), self.times[:, -1].copy()
        start, end = (np.array([b[i] for _, b in bookings]).clip(begin[row], until[row]) for i in (0, 1))
        demand = np.array([b[2] for _, b in bookings])
        every = np.arange(len(begin))
        rows = np.concatenate([every, every, row, row])
        times = np.concatenate([begin, until, start, end])
        order = np.lexsort((times, rows))
        times, rows = times[order], rows[order]
        new = np.append(True, (np.diff(times) > _SAME) | (np.diff(rows) > 0))
        edge = np.cumsum(new) - 1
        times, rows = times[new], rows[new]
        at = np.empty(len(order), dtype=np.int64)
        at[order] = edge
        taken, given = at[-2 * len(row) : -len(row)], at[-len(row) :]
        first = np.searchsorted(rows, every)
        self.cells = np.maximum(np.diff(np.append(first, len(rows))) - 1, 1)
        self._widen(int(self.cells.max()))
        cell = np.arange(len(rows)) - first[rows]
        there = (cell == 0) | (cell < self.cells[rows])
        rows, cell = rows[there], cell[there]
        self.times[:, 1:] = until[:, None]
        self.times[rows, cell] = times[there]
        for i, free in enumerate(self.free):
            change = np.bincount(given, demand[:, i], len(there)) - np.bincount(
                taken, demand[:, i], len(there)
            )
            free[:, :] = -1.0
            free[rows, cell] = self.most[i, rows] + np.cumsum(change)[there]
        self.most = self.free.max(axis=2)
        self.spare = (self.free * np.diff(self.times)).sum(axis=2)

    def candidates(self, demand: Floats, seconds: float) -> Ints:
        """Rows on which there is enough at some time, and enough in all: a demand may fit there, and on no other."""
        least, work = demand[:, None], demand[:, None] * (seconds * (1 - 1e-9))
        return np.flatnonzero(((self.most >= least) & (self.spare >= work)).all(axis=0))

    def runs(
        self, demand: Floats, not_before: float, deadline: float, rows: Ints
    ) -> tuple[NDArray[np.bool_], Floats, Floats]:
        """Of each cell of some rows: whether the demand fits, since when it does, and until when the cell lasts."""
        width = int(self.cells[rows].max())
        fits = self.free[0, rows, :width] >= demand[0]
        for i in range(1, len(demand)):
            if demand[i] > 0:
                fits &= self.free[i, rows, :width] >= demand[i]
        times = self.times[rows, : width + 1]
        since = np.maximum.accumulate(np.where(fits, -inf, times[:, 1:]), axis=1)
        np.maximum(since, np.maximum(times[:, :1], not_before), out=since)
        return fits, since, np.minimum(times[:, 1:], deadline)

    def _split(self, row: int, time: float) -> int:
        """The cell that begins at a time, made where there is none."""
        cells = int(self.cells[row])
        times = self.times[row]
        index = int(times[: cells + 1].searchsorted(time - _SAME))
        if index > cells or abs(times[index] - time) <= _SAME:
            return min(index, cells)
        self._widen(cells + 1)
        times, free = self.times[row], self.free[:, row]
        times[index + 1 : cells + 2] = times[index : cells + 1].copy()
        times[index] = time
        free[:, index : cells + 1] = free[:, index - 1 : cells].copy()
        self.cells[row] = cells + 1
        return index

    def _join(self, row: int) -> None:
        """Make one of neighbouring cells with the same free."""
        cells = int(self.cells[row])
        free = self.free[:, row, :cells]
        new = np.concatenate([[True], (free[:, 1:] != free[:, :-1]).any(axis=0)])
        count = int(new.sum())
        if count < cells:
            until = self.times[row, cells]
            self.times[row, :count] = self.times[row, :cells][new]
            self.times[row, count:] = until
            self.free[:, row, :count] = free[:, new]
            self.free[:, row, count:] = -1.0
            self.cells[row] = count

    def _widen(self, cells: int) -> None:
        width = self.free.shape[2]
        if cells <= width:
            return
        more = cells + cells // 2 - width
        self.times = np.pad(self.times, ((0, 0), (0, more)), mode="edge")
        self.free = np.pad(self.free, ((0, 0), (0, 0), (0, more)), constant_values=-1.0)


class Timelines:
    """The free capacity of all nodes over time; what is booked reduces it."""

    def __init__(self, nodes: NodeTable, bookings: dict[int, list[Booking]] | None = None) -> None:
        """Start from nodes, and by node what is booked on them."""
        self._capacity = nodes.capacity()
        self.count = len(nodes)
        self._blocks = [
            _Block(
                nodes.free_from[i : i + _ROWS], nodes.free_until[i : i + _ROWS], self._capacity[i : i + _ROWS]
            )
            for i in range(0, len(nodes), _ROWS)
        ]
        by_block: dict[int, list[tuple[int, Booking]]] = {}
        for node, booked in (bookings or {}).items():
            by_block.setdefault(node // _ROWS, []).extend((node % _ROWS, booking) for booking in booked)
        for block, found in by_block.items():
            if found:
                self._blocks[block].load(found)

    def book(self, node: int, start: float, seconds: float, demand: Floats) -> None:
        """Take an amount of a node for a time."""
        self._blocks[node // _ROWS].change(node % _ROWS, start, start + seconds, demand)

    def release(self, node: int, start: float, seconds: float, demand: Floats) -> None:
        """Give back what was booked."""
        self._blocks[node // _ROWS].change(node % _ROWS, start, start + seconds, -demand)

    def whole(self, node: int) -> Vector:
        """All that a node has."""
        return tuple(self._capacity[node].tolist())

    def earliest(
        self, demand: Floats, seconds: float, *, not_before: float, deadline: float, only: int = ANYWHERE
    ) -> Spot | None:
        """Where a job could start first, of equal starts on the first node; None where it fits nowhere.

        What is booked keeps its time: this is the reservation of conservative backfilling (Mu'alem and Feitelson 2001).
        """
        best: Spot | None = None
        for number, block in enumerate(self._blocks):
            if only != ANYWHERE and only // _ROWS != number:
                continue
            rows = block.candidates(demand, seconds)
            if only != ANYWHERE:
                rows = rows[rows == only % _ROWS]
            if not len(rows):
                continue
            fits, since, until = block.runs(demand, not_before, deadline, rows)
            fits &= until - since >= seconds
            starts = np.where(fits, since, inf)
            index = int(starts.argmin())
            start = float(starts.flat[index])
            if start < (best.start if best else inf):
                best = Spot(number * _ROWS + int(rows[index // starts.shape[1]]), start)
                if start <= not_before:
                    break
        return best

    def together(
        self, demand: Floats, nodes: int, seconds: float, *, not_before: float, deadline: float
    ) -> tuple[tuple[int, ...], float] | None:
        """Whole nodes, and the first time at which so many of them are free together; None where there is none."""
        where, begins, ends = self._empty(demand, seconds, not_before, deadline)
        if len(where) < nodes:
            return None
        latest = ends - seconds
        begins_in_order, latest_in_order = np.sort(begins), np.sort(latest)
        begun = np.searchsorted(begins_in_order, begins_in_order, side="right")
        over = np.searchsorted(latest_in_order, begins_in_order, side="left")
        enough = np.flatnonzero(begun - over >= nodes)
        if not len(enough):
            return None
        start = float(begins_in_order[enough[0]])
        usable = np.flatnonzero((begins <= start) & (start <= latest))
        tightest = usable[np.lexsort((where[usable], ends[usable], -begins[usable]))][:nodes]
        return tuple(sorted(where[tightest].tolist())), start

    def _empty(
        self, demand: Floats, seconds: float, not_before: float, deadline: float
    ) -> tuple[Ints, Floats, Floats]:
        """Intervals of at least so long in which a node that is large enough is all free: node, begin, end."""
        found: list[tuple[Ints, Floats, Floats]] = []
        for number, block in enumerate(self._blocks):
            first = number * _ROWS
            capacity = self._capacity[first : first + len(block.cells)]
            rows = np.flatnonzero((capacity >= demand).all(axis=1) & (capacity <= block.most.T).all(axis=1))
            if not len(rows):
                continue
            width = int(block.cells[rows].max())
            fits: NDArray[np.bool_] = np.all(
                block.free[:, rows, :width] >= capacity[rows].T[:, :, None], axis=0
            )
            times = block.times[rows, : width + 1]
            since = np.maximum.accumulate(np.where(fits, -inf, times[:, 1:]), axis=1)
            np.maximum(since, np.maximum(times[:, :1], not_before), out=since)
            last = fits.copy()
            last[:, :-1] &= ~fits[:, 1:]
            until = np.minimum(times[:, 1:], deadline)
            row, cell = np.nonzero(last & (until - since >= seconds))
            found.append((rows[row] + first, since[row, cell], until[row, cell]))
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
        node, begin, end = (np.concatenate(column) for column in zip(*found, strict=True))
        return node, begin, end
