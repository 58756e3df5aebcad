"""What is placed so far, and jobs placed one by one into what is left. Pure."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from hpcpanda.packing.placing.sweep import Booking
from hpcpanda.packing.placing.timeline import Timelines
from hpcpanda.packing.tables import ANYWHERE, Floats, Ints, JobTable, NodeTable, Placement

NEAR = 0.1
"""Share of a job's time that its start may be later for the node that has its inputs."""


class Book:
    """Jobs and nodes, and which job has which place."""

    def __init__(self, jobs: JobTable, nodes: NodeTable) -> None:
        self.jobs = jobs
        self.nodes = nodes
        self.demand: Floats = jobs.demand()
        self.node: Ints = np.full(len(jobs), ANYWHERE, dtype=np.int64)
        self.start: Floats = np.full(len(jobs), np.nan)
        self.others: dict[int, tuple[int, ...]] = {}
        self.count = 0
        """Jobs that have a place."""
        self._capacity = [tuple(row) for row in nodes.capacity().tolist()]
        self._bookings: defaultdict[int, list[Booking]] = defaultdict(list)
        self._lines: Timelines | None = None

    def note(self, job: int, where: tuple[int, ...], start: float) -> None:
        """A place that was found elsewhere: it is not looked at whether it is free."""
        self.node[job], self.start[job] = where[0], start
        self.count += 1
        end = start + float(self.jobs.seconds[job])
        if self.jobs.nodes[job] > 1:
            self.others[job] = where[1:]
            for n in where:
                self._bookings[n].append((start, end, self._capacity[n]))
        else:
            self._bookings[where[0]].append((start, end, tuple(self.demand[job].tolist())))
        self._lines = None

    def note_all(self, jobs: Ints, nodes: list[int], starts: list[float]) -> None:
        """Places of jobs of one node or part of it."""
        self.node[jobs], self.start[jobs] = nodes, starts
        self.count += len(jobs)
        ends = (self.start[jobs] + self.jobs.seconds[jobs]).tolist()
        taken = map(tuple, self.demand[jobs].tolist())
        for n, start, end, demand in zip(nodes, starts, ends, taken, strict=True):
            self._bookings[n].append((start, end, demand))
        self._lines = None

    def bookings(self, node: int) -> list[Booking]:
        """What is on a node."""
        return self._bookings.get(node, [])

    def waiting(self, jobs: Ints) -> Ints:
        """Those of some jobs that have no place."""
        left: Ints = jobs[self.node[jobs] == ANYWHERE]
        return left

    def insert(self, job: int) -> bool:
        """Give a job the earliest place that is left; says whether there is one."""
        lines = self._timelines()
        row = self.jobs
        seconds = float(row.seconds[job])
        limits = (float(row.not_before[job]), float(row.deadline[job]))
        found = find(lines, self.demand[job], int(row.nodes[job]), seconds, limits, int(row.affinity[job]))
        if found is None:
            return False
        self._put(lines, job, *found)
        return True

    def insert_near(self, job: int, soonest: float) -> bool:
        """Give a job a place on the node that has its inputs, if it can start there (nearly) at the soonest."""
        lines = self._timelines()
        row = self.jobs
        seconds = float(row.seconds[job])
        spot = lines.earliest(
            self.demand[job],
            seconds,
            not_before=float(row.not_before[job]),
            deadline=float(row.deadline[job]),
            only=int(row.affinity[job]),
        )
        if spot is None or spot.start > soonest + NEAR * seconds:
            return False
        self._put(lines, job, (spot.node,), spot.start)
        return True

    def _put(self, lines: Timelines, job: int, where: tuple[int, ...], start: float) -> None:
        """Note a place and keep the timelines, which know it too."""
        seconds = float(self.jobs.seconds[job])
        for n in where:
            taken = np.array(self._capacity[n]) if self.jobs.nodes[job] > 1 else self.demand[job]
            lines.book(n, start, seconds, taken)
        self.note(job, where, start)
        self._lines = lines

    def placement(self) -> Placement:
        """The result."""
        return Placement(node=self.node, start=self.start, others=self.others)

    def _timelines(self) -> Timelines:
        if self._lines is None:
            self._lines = Timelines(self.nodes, self._bookings)
        return self._lines


def find(
    lines: Timelines,
    demand: Floats,
    nodes: int,
    seconds: float,
    limits: tuple[float, float],
    affinity: int,
) -> tuple[tuple[int, ...], float] | None:
    """Nodes and start of the earliest place left between two times; the node with the inputs where it costs little."""
    not_before, deadline = limits
    if nodes > 1:
        return lines.together(demand, nodes, seconds, not_before=not_before, deadline=deadline)
    spot = lines.earliest(demand, seconds, not_before=not_before, deadline=deadline)
    if spot is None:
        return None
    if affinity not in {ANYWHERE, spot.node} and 0 <= affinity < lines.count:
        near = lines.earliest(demand, seconds, not_before=not_before, deadline=deadline, only=affinity)
        if near is not None and near.start <= spot.start + NEAR * seconds:
            spot = near
    return (spot.node,), spot.start
