"""A plan that changes job by job: one more, one less, one that needs less; the others keep their places."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.packing.placing.book import find
from hpcpanda.packing.placing.sweep import Booking
from hpcpanda.packing.placing.timeline import Timelines
from hpcpanda.packing.tables import DIMENSIONS, Floats, JobShape, JobTable, NodeTable, Placement


@dataclass(frozen=True, slots=True)
class Place:
    """Where and when a job runs."""

    job: JobShape
    nodes: tuple[int, ...]
    start: float


class Plan:
    """Jobs in their places on nodes. Nothing that is in the plan ever moves."""

    def __init__(self, nodes: NodeTable) -> None:
        """An empty plan.

        Raises:
            InvalidValue: a row could be no node.
        """
        nodes.check()
        self._nodes = nodes
        self._places: dict[int, Place] = {}
        self._lines = Timelines(nodes)

    @classmethod
    def of(cls, jobs: JobTable, nodes: NodeTable, placement: Placement) -> Plan:
        """The plan that a placement is; jobs are known by their row. Jobs without a place are not in it."""
        plan = cls(nodes)
        bookings: dict[int, list[Booking]] = {}
        demand = jobs.demand().tolist()
        for job in np.flatnonzero(placement.placed).tolist():
            place = Place(jobs.row(job), placement.nodes_of(job), float(placement.start[job]))
            plan._places[job] = place
            for node in place.nodes:
                taken = tuple(demand[job]) if len(place.nodes) == 1 else plan._lines.whole(node)
                bookings.setdefault(node, []).append((place.start, place.start + place.job.seconds, taken))
        plan._lines = Timelines(nodes, bookings)
        return plan

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job: int) -> bool:
        return job in self._places

    def place(self, job: int) -> Place:
        """The place of a job.

        Raises:
            InvalidValue: it is not in the plan.
        """
        if job not in self._places:
            raise InvalidValue("job", f"{job} is not in the plan")
        return self._places[job]

    def add(self, job: int, shape: JobShape) -> Place | None:
        """Put a job into the earliest place that is left; None, and nothing changed, where there is none.

        Raises:
            InvalidValue: a job of this number is in the plan.
        """
        if job in self._places:
            raise InvalidValue("job", f"{job} is in the plan already; remove it first")
        limits = (shape.not_before, shape.deadline)
        found = find(self._lines, _demand(shape), shape.nodes, shape.seconds, limits, shape.affinity)
        if found is None:
            return None
        place = Place(shape, *found)
        self._book(place)
        self._places[job] = place
        return place

    def remove(self, job: int) -> Place:
        """Take a job out; its place is free again.

        Raises:
            InvalidValue: it is not in the plan.
        """
        place = self.place(job)
        for node in place.nodes:
            self._lines.release(node, place.start, place.job.seconds, self._taken(place, node))
        del self._places[job]
        return place

    def shrink(self, job: int, shape: JobShape) -> Place:
        """Let a job need less of anything, at its place: nothing in the plan loses its place by it.

        Raises:
            InvalidValue: it is not in the plan, or would need more of something, or other nodes.
        """
        old = self.place(job)
        for name in (*DIMENSIONS, "seconds"):
            if getattr(shape, name) > getattr(old.job, name):
                raise InvalidValue(
                    name, f"is more than job {job} has a place for; remove it and add it again"
                )
        if shape.nodes != old.job.nodes:
            raise InvalidValue(
                "nodes", f"job {job} has its place on {old.job.nodes}; remove it and add it again"
            )
        self.remove(job)
        place = replace(old, job=shape)
        self._book(place)
        self._places[job] = place
        return place

    def _book(self, place: Place) -> None:
        for node in place.nodes:
            self._lines.book(node, place.start, place.job.seconds, self._taken(place, node))

    def _taken(self, place: Place, node: int) -> Floats:
        return _demand(place.job) if len(place.nodes) == 1 else np.array(self._lines.whole(node))


def _demand(shape: JobShape) -> Floats:
    return np.array([getattr(shape, name) for name in DIMENSIONS], dtype=np.float64)
