"""The fewest nodes, proven: small instances solved exactly with HiGHS, by two formulations and one for classic ones.

Times are whole steps, so that some best plan starts every job at a step: moving all jobs as early as they go makes
each start the sum of the times of others.

- ``by_patterns``: all sets of jobs that one node can run are found by search; HiGHS chooses the fewest that cover all
  jobs (Gilmore and Gomory, "A linear programming approach to the cutting-stock problem", Operations Research 9, 1961).
- ``by_time``: a binary variable for each job, node and start; also for jobs of several nodes (Pritsker, Watters, Wolfe,
  "Multiproject scheduling with limited resources", Management Science 16, 1969).
- ``arc_flow``: one-dimensional bin packing (Valerio de Carvalho, "Exact solution of bin-packing problems using column
  generation and branch-and-bound", Annals of Operations Research 86, 1999).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import highspy
import numpy as np

from hpcpanda.packing.tables import Ints, JobTable, NodeTable

RESOURCES = ("cores", "memory_mb", "gpus", "disk_mb")


class Unproven(Exception):
    """The time was too short for a proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A small instance in whole steps of time."""

    demand: Ints
    """Row: a job. Column: a resource."""
    capacity: Ints
    """Of a node."""
    steps: Ints
    """For which each job runs."""
    width: Ints
    """Nodes of each job."""
    horizon: int
    """Steps for which nodes are free."""

    @classmethod
    def of(cls, jobs: JobTable, kind: NodeTable, seconds: float, step: float) -> Small:
        """Take an instance apart; refuse one whose times are not whole steps, or with times to keep."""
        steps = np.rint(jobs.seconds / step).astype(np.int64)
        assert np.allclose(steps * step, jobs.seconds)
        assert (jobs.not_before <= 0).all()
        assert np.isinf(jobs.deadline).all()
        capacity = np.array([int(getattr(kind, r)[0]) for r in RESOURCES])
        demand = np.stack([getattr(jobs, r) for r in RESOURCES], axis=1)
        demand = np.where((jobs.nodes > 1)[:, None], np.maximum(capacity, 1), demand)
        return cls(
            demand=demand,
            capacity=np.maximum(capacity, 1),
            steps=steps,
            width=jobs.nodes,
            horizon=round(seconds / step),
        )

    def one_node(self, members: Iterable[int]) -> bool:
        """Whether one node can run these jobs, found by trying all starts, largest job first."""
        order = sorted(members, key=lambda i: (-self.steps[i], *(-self.demand[i])))
        work = sum(self.demand[i] * self.steps[i] for i in order)
        if np.any(work > self.capacity * self.horizon):
            return False
        used = np.zeros((self.horizon, len(self.capacity)), np.int64)
        return self._search(order, 0, used, 0)

    def _search(self, order: list[int], at: int, used: Ints, least: int) -> bool:
        if at == len(order):
            return True
        job = order[at]
        length = int(self.steps[job])
        twin = at + 1 < len(order) and self._equal(job, order[at + 1])
        # by symmetry in time the first job starts in the first half
        last = (self.horizon - length + 1) // 2 if at == 0 else self.horizon - length
        for start in range(least, last + 1):
            if np.all(used[start : start + length] + self.demand[job] <= self.capacity):
                used[start : start + length] += self.demand[job]
                found = self._search(order, at + 1, used, start if twin else 0)
                used[start : start + length] -= self.demand[job]
                if found:
                    return True
        return False

    def _equal(self, a: int, b: int) -> bool:
        return bool(self.steps[a] == self.steps[b] and (self.demand[a] == self.demand[b]).all())


def fewest_nodes(
    jobs: JobTable, kind: NodeTable, seconds: float, step: float, *, limit_s: float = 20.0
) -> int:
    """The least number of nodes that can run all jobs.

    Raises:
        Unproven: not within the time.
    """
    small = Small.of(jobs, kind, seconds, step)
    return by_patterns(small, limit_s) if (jobs.nodes == 1).all() else by_time(small, limit_s)


def by_patterns(small: Small, limit_s: float) -> int:
    """Cover the jobs, all of one node, with as few sets as possible."""
    assert (small.width == 1).all()
    n = len(small.steps)
    sets = _feasible_sets(small)
    largest = [s for s in sets if not any(s | {i} in sets for i in range(n) if i not in s)]
    model = _Model(limit_s)
    for _ in largest:
        model.column(cost=1, integer=True, most=1)
    for job in range(n):
        model.row([c for c, s in enumerate(largest) if job in s], least=1)
    return model.minimum()


def _feasible_sets(small: Small) -> set[frozenset[int]]:
    """All sets of jobs that one node can run, by size: a set can only be one where all smaller ones in it are."""
    n = len(small.steps)
    layer = {frozenset({i}) for i in range(n)}
    found = set(layer)
    while layer:
        layer = {
            s | {i}
            for s in layer
            for i in range(max(s) + 1, n)
            if all((s | {i}) - {j} in found for j in s) and small.one_node(s | {i})
        }
        found |= layer
    return found


def by_time(small: Small, limit_s: float) -> int:
    """Choose node and start of each job; jobs of several nodes start on all at once."""
    n, horizon, nodes = len(small.steps), small.horizon, _enough(small)
    model = _Model(limit_s)
    used = [model.column(cost=1, integer=True, most=1) for _ in range(nodes)]
    running: dict[tuple[int, int], list[tuple[int, int]]] = {
        (b, t): [] for b in range(nodes) for t in range(horizon)
    }
    for job in range(n):
        begun = []
        for start in range(horizon - int(small.steps[job]) + 1):
            here = [model.column(cost=0, integer=True, most=1) for _ in range(nodes)]
            begins = model.column(cost=0, integer=True, most=1)
            begun.append(begins)
            model.row([*here, begins], [*[1] * nodes, -int(small.width[job])], least=0, most=0)
            for node, column in enumerate(here):
                for t in range(start, start + int(small.steps[job])):
                    running[node, t].append((job, column))
        model.row(begun, least=1, most=1)
    for (node, _), there in running.items():
        for resource, capacity in enumerate(small.capacity):
            mine = [
                (small.demand[job, resource], column) for job, column in there if small.demand[job, resource]
            ]
            if mine:
                model.row(
                    [*(c for _, c in mine), used[node]], [*(int(d) for d, _ in mine), -int(capacity)], most=0
                )
    for node in range(nodes - 1):
        model.row([used[node], used[node + 1]], [1, -1], least=0)
    return model.minimum()


def _enough(small: Small) -> int:
    """Nodes that suffice: the widest jobs after one another where time allows, first fit for the others."""
    order = sorted(range(len(small.steps)), key=lambda i: (-small.width[i], -small.steps[i]))
    used: list[Ints] = []
    for job in order:
        length, width = int(small.steps[job]), int(small.width[job])
        best: list[int] = []
        for start in range(small.horizon - length + 1):
            free = [
                b
                for b, u in enumerate(used)
                if np.all(u[start : start + length] + small.demand[job] <= small.capacity)
            ][:width]
            if not best or len(free) > len(best) - 1:
                best = [start, *free]
        start, *chosen = best
        for _ in range(width - len(chosen)):
            used.append(np.zeros((small.horizon, len(small.capacity)), np.int64))
            chosen.append(len(used) - 1)
        for node in chosen:
            used[node][start : start + length] += small.demand[job]
    return len(used)


def arc_flow(sizes: Ints, capacity: int, limit_s: float, *, integer: bool = True) -> int:
    """Bins of one-dimensional bin packing: the fewest, or without ``integer`` the relaxation rounded up."""
    items = sorted(Counter(sizes.tolist()).items(), reverse=True)
    model = _Model(limit_s)
    reached = {0}
    into: dict[int, list[int]] = {}
    out: dict[int, list[int]] = {}
    for size, count in items:
        arcs: list[int] = []
        front, ends = set(reached), set(reached)
        done: set[int] = set()
        for _ in range(min(count, capacity // size)):
            tails = {v for v in front if v + size <= capacity} - done
            done |= tails
            for tail in sorted(tails):
                arc = model.column(cost=0, integer=integer, most=count)
                arcs.append(arc)
                out.setdefault(tail, []).append(arc)
                into.setdefault(tail + size, []).append(arc)
            front = {v + size for v in tails}
            ends |= front
        reached = ends
        model.row(arcs, least=count)
    bins = model.column(cost=1, integer=integer, most=len(sizes))
    model.row([bins, *out[0]], [1, *[-1] * len(out[0])], least=0, most=0)
    for vertex, arcs in into.items():
        leaving = out.get(vertex, [])
        model.row([*arcs, *leaving], [*[1] * len(arcs), *[-1] * len(leaving)], least=0)
    return model.minimum()


class _Model:
    """Rows and columns on their way to HiGHS."""

    def __init__(self, limit_s: float) -> None:
        self._highs = highspy.Highs()
        self._highs.silent()
        self._highs.setOptionValue("time_limit", limit_s)
        self._highs.setOptionValue("threads", 1)
        self._highs.setOptionValue("mip_rel_gap", 0.0)
        self._highs.setOptionValue("mip_abs_gap", 0.99)
        self._costs: list[float] = []
        self._most: list[float] = []
        self._integer: list[bool] = []
        self._rows: list[tuple[float, float, list[int], list[float]]] = []

    def column(self, *, cost: float, integer: bool, most: float) -> int:
        """A variable of 0 to ``most``; its number."""
        self._costs.append(cost)
        self._most.append(most)
        self._integer.append(integer)
        return len(self._costs) - 1

    def row(
        self,
        columns: list[int],
        weights: list[int] | None = None,
        *,
        least: float = -math.inf,
        most: float = math.inf,
    ) -> None:
        """A sum of variables within limits."""
        self._rows.append((least, most, columns, [float(w) for w in weights or [1] * len(columns)]))

    def minimum(self) -> int:
        """The least cost, a whole number, rounded up where variables are not whole."""
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self._costs), len(self._rows)
        lp.col_cost_ = np.array(self._costs)
        lp.col_lower_ = np.zeros(len(self._costs))
        lp.col_upper_ = np.array(self._most, np.float64)
        lp.row_lower_ = np.array([r[0] for r in self._rows])
        lp.row_upper_ = np.array([r[1] for r in self._rows])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(r[2]) for r in self._rows)])
        lp.a_matrix_.index_ = np.array([c for r in self._rows for c in r[2]])
        lp.a_matrix_.value_ = np.array([w for r in self._rows for w in r[3]])
        whole, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
        if any(self._integer):
            lp.integrality_ = [whole if i else real for i in self._integer]
        self._highs.passModel(lp)
        self._highs.run()
        status = self._highs.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise Unproven(self._highs.modelStatusToString(status))
        return math.ceil(self._highs.getInfo().objective_function_value - 1e-6)
