"""Jobs that all run at the same time: node after node, the set of jobs that leaves the least. Pure; NumPy only.

Minimum bin slack (Gupta and Ho, "A new heuristic algorithm for the one-dimensional bin-packing problem", Production Planning
& Control 10, 1999): a search through the sets of jobs that fit a node, the largest job being in each of them (Fleszar and
Hindi, "New heuristics for one-dimensional bin-packing", Computers & Operations Research 29, 2002). Here of vectors, and
bounded in steps. Then some nodes are emptied and filled again, with the jobs weighted a little differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import gt, sub

import numpy as np

from hpcpanda.packing.placing.sweep import Vector
from hpcpanda.packing.tables import Floats, Ints

_STEPS = 5000
"""Jobs tried for one node, at most."""
_LEAST_STEPS = 50
_NODES = (3, 4, 6, 10)
"""Emptied at a time."""
_NOISE = 0.1
"""By which the worth of a job is varied when it is placed again."""

_FULL = 1e-6
"""Of any resource: a node with less of it left is full."""


def binned(demand: Floats, capacity: Floats, *, bound: int, steps: int) -> Ints:
    """Give each of the jobs a node, all at once.

    Args:
        demand: jobs x dimensions; each fits a node.
        capacity: of a node.
        bound: no plan has fewer nodes: the search ends there.
        steps: of the whole search, about: jobs that are tried for a node.

    Returns:
        The node of each job, ``0 ...`` without a gap.
    """
    share = demand / np.maximum(capacity, 1e-9)
    total = share.sum(axis=0)
    worth = share @ (total / max(float(total.max()), 1e-9))
    search = _Search(demand, capacity, worth)
    limit = int(np.clip(steps / max(bound, 1), _LEAST_STEPS, _STEPS))
    bins = search.fill(range(len(demand)), worth, limit)
    search.improve(bins, bound, steps, limit)
    node = np.zeros(len(demand), dtype=np.int64)
    for number, jobs in enumerate(bins):
        node[jobs] = number
    return node


class _Search:
    """What is given, and the steps that were taken."""

    def __init__(self, demand: Floats, capacity: Floats, worth: Floats) -> None:
        self._demand: list[Vector] = list(map(tuple, demand.tolist()))
        self._capacity: Vector = tuple(capacity.tolist())
        self._worth = worth
        self.taken = 0

    def fill(self, jobs: Sequence[int], worth: Floats, limit: int) -> list[list[int]]:
        """Fill nodes with jobs, one after the other, the job that is worth the most first."""
        kinds: dict[Vector, list[int]] = {}
        for job in sorted(jobs, key=lambda job: -worth[job]):
            kinds.setdefault(self._demand[job], []).append(job)
        demands, waiting = list(kinds), list(kinds.values())
        bins: list[list[int]] = []
        while waiting:
            worths = [float(worth[k[0]]) for k in waiting]
            chosen, used = best_set(demands, worths, [len(k) for k in waiting], self._capacity, limit)
            self.taken += used
            bins.append([waiting[kind].pop() for kind in chosen])
            for kind in sorted({k for k in chosen if not waiting[k]}, reverse=True):
                del demands[kind], waiting[kind]
        return bins

    def improve(self, bins: list[list[int]], bound: int, steps: int, limit: int) -> None:
        """Empty the worst filled node and some others, and fill them again, as long as steps last."""
        choice = np.random.default_rng(0)
        used = np.array([self._worth[jobs].sum() for jobs in bins])
        turn = 0
        while len(bins) > bound and self.taken < steps and len(bins) > 1:
            size = min(_NODES[turn % len(_NODES)], len(bins))
            turn += 1
            slack = used.max() - used
            chosen = np.argsort(-slack * choice.random(len(bins)), kind="stable")[: size // 2].tolist()
            rest = np.setdiff1d(np.arange(len(bins)), chosen)
            chosen += choice.permutation(rest)[: size - len(chosen)].tolist()
            jobs = [job for n in chosen for job in bins[n]]
            noise = 1 + _NOISE * choice.random(len(self._worth))
            again = self.fill(jobs, self._worth * noise, limit)
            filled = np.array([self._worth[b].sum() for b in again])
            self.taken += len(jobs)
            if len(again) > size or (
                len(again) == size and (filled**2).sum() < (used[chosen] ** 2).sum() * (1 - 1e-12)
            ):
                continue
            for n, b, u in zip(chosen, again, filled, strict=False):
                bins[n], used[n] = b, u
            for n in sorted(chosen[len(again) :], reverse=True):
                del bins[n]
                used = np.delete(used, n)


def best_set(
    demands: list[Vector], worths: list[float], counts: list[int], capacity: Vector, limit: int
) -> tuple[list[int], int]:
    """Search for the jobs that together are worth the most and fit a node, with the first of all in it.

    Args:
        demands: of each kind of job.
        worths: of one job of each kind.
        counts: jobs of each kind.
        capacity: of the node.
        limit: of jobs to try.

    Returns:
        The kind of each job chosen, and how many were tried.
    """
    left = list(counts)
    left[0] -= 1
    chosen, best = [0], [0]
    rooms = [_less(capacity, demands[0])]
    values = [worths[0]]
    most, tried, kind = worths[0], 0, 0
    while tried < limit:
        room = rooms[-1]
        while kind < len(demands) and not (left[kind] and _fits(demands[kind], room)):
            kind += 1
        if kind < len(demands):
            tried += 1
            left[kind] -= 1
            chosen.append(kind)
            rooms.append(_less(room, demands[kind]))
            values.append(values[-1] + worths[kind])
            if values[-1] > most:
                most, best = values[-1], list(chosen)
                if min(rooms[-1]) < _FULL:
                    break
            continue
        if len(chosen) == 1:
            break
        rooms.pop()
        values.pop()
        kind = chosen.pop()
        left[kind] += 1
        kind += 1
    return best, tried


def _less(room: Vector, demand: Vector) -> Vector:
    return tuple(map(sub, room, demand))


def _fits(demand: Vector, room: Vector) -> bool:
    return not any(map(gt, demand, room))
