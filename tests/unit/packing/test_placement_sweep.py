"""Filling nodes side by side: what one of them took, no other has."""

from __future__ import annotations

import numpy as np

from hpcpanda.packing.placing.classes import JobClasses, Ranking, group
from hpcpanda.packing.placing.sweep import Room, rooms_of, sweep
from hpcpanda.packing.placing.timeline import Timelines
from hpcpanda.packing.tables import NodeTable


def test_the_last_job_that_fits_is_taken_by_one_of_two_nodes() -> None:
    """The node that comes too late takes nothing, least of all a job that it has no room for."""
    demand = np.array([[1.0, 100.0]] * 5 + [[2.0, 1.0]])
    classes = JobClasses(demand, np.full(6, 5.0), np.array([4.0, 10.0]), Ranking())
    busy = [(0.0, 1.0, (4.0, 10.0))]
    rooms = [Room(n, 0.0, 100.0, (4.0, 10.0), busy) for n in range(2)]
    filled = sweep(classes, rooms, abreast=2)
    assert (filled.job, filled.start) == ([5], [1.0])
    assert sorted(classes.remaining()) == [0, 1, 2, 3, 4]


def test_an_empty_node_may_get_a_long_job_first() -> None:
    """Of a large short job and a small long one, the ranking says which starts on an empty node."""
    for first, job in ((0.0, 0), (4.0, 1)):
        classes = JobClasses(
            np.array([[4.0], [2.0]]), np.array([5.0, 9.0]), np.array([4.0]), Ranking(first=first, rare=0.0)
        )
        filled = sweep(classes, [Room(0, 0.0, 9.0, (4.0,))], abreast=1)
        assert filled.job == [job]


def test_room_that_is_left_to_the_second_is_found() -> None:
    """A job finds a place of exactly its cores and seconds, though hardly anything else is free; a longer one does not."""
    nodes = NodeTable.alike(2, cores=3, memory_mb=7, free_until=1e6 / 3)
    booked = {0: [(0.1, 1e6 / 3, (3.0, 0.0, 0.0, 0.0))], 1: [(0.0, 1e6 / 3 - 0.7, (2.0, 7.0, 0.0, 0.0))]}
    lines = Timelines(nodes, booked)
    demand = np.array([3.0, 7.0, 0.0, 0.0])
    end = float(nodes.free_until[1])
    start = end - 0.7
    found = lines.earliest(demand, end - start, not_before=0.5, deadline=np.inf)
    assert found is not None
    assert (found.node, found.start) == (1, start)
    assert lines.earliest(demand, 0.8, not_before=0.0, deadline=np.inf) is None


def test_whole_bookings_cut_a_node_into_rooms() -> None:
    """Between bookings of all of a node there are rooms with nothing in them."""
    whole = (4.0,)
    rooms = list(rooms_of(3, 0.0, 10.0, whole, [(6.0, 8.0, whole), (0.0, 2.0, whole)]))
    assert [(r.begin, r.end, r.bookings) for r in rooms] == [(2.0, 6.0, []), (8.0, 10.0, [])]


def test_many_demands_are_grouped() -> None:
    """Ten thousand different demands make no more classes than asked for, equal ones always the same."""
    rng = np.random.default_rng(3)
    demand = np.repeat(rng.uniform(1, 1e5, (5000, 2)), 2, axis=0)
    labels = group(demand, most=100)
    assert labels.max() < 100
    assert (labels[::2] == labels[1::2]).all()
    assert labels.max() > 10
