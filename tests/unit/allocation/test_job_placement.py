"""Where jobs of a node are placed, and how it shares its cores and memory with events."""

from __future__ import annotations

from hpcpanda.allocation.job_placement import LINGER_S, STALE_S, JobPlacement, Step
from hpcpanda.allocation.job_space import Space


def placement(slots: int = 8, *, memory_mb: int = 8000, gpus: int = 0, free: bool = True) -> JobPlacement:
    """A node; with ``free`` no events run on it."""
    node = JobPlacement(slots=slots, memory_mb=memory_mb, gpus=gpus, deadline=1000.0)
    if free:
        node.add(0, Space(slots, 0, 0), 1.0, [0], 0.0)
        node.free(node.step(0.0).reserve, 0.0)
        assert node.drop([0]) == (0,)
    return node


def started(step: Step) -> list[int]:
    """Tickets that start."""
    return [p.ticket for p in step.start]


def test_cores_are_asked_of_events_and_a_job_starts_when_all_are_free() -> None:
    """It holds what has come free until then."""
    node = placement(free=False)
    node.add(1, Space(3, 100, 0), 10.0, [1], 0.0)
    step = node.step(0.0)
    assert (step.reserve, started(step)) == ({0, 1, 2}, [])
    node.free([0, 2], 1.0)
    assert node.step(1.0) == Step()
    node.free([1], 2.0)
    assert node.step(2.0).start[0].slots == (0, 1, 2)


def test_slots_go_back_to_events_when_no_job_wants_them() -> None:
    """At once when no further job can come, else after a moment."""
    node = placement(4)
    node.add(1, Space(4, 100, 0), 10.0, [1], 0.0)
    assert started(node.step(0.0)) == [1]
    node.ended(1, 5.0)
    assert node.step(5.0, more=True).unreserve == frozenset()
    assert node.step(5.1 + LINGER_S, more=True).unreserve == {0, 1, 2, 3}
    node = placement(4)
    assert node.step(0.0).unreserve == {0, 1, 2, 3}


def test_slots_are_side_by_side_where_possible() -> None:
    """Else anything that is free."""
    node = placement(6)
    node.add(1, Space(1, 10, 0), 10.0, [1, 2, 3], 0.0)
    assert [p.slots for p in node.step(0.0, more=True).start] == [(0,), (1,), (2,)]
    node.ended(2, 0.0)
    node.add(2, Space(2, 10, 0), 10.0, [4], 0.0)
    assert node.step(0.0, more=True).start[0].slots == (3, 4)
    node.add(3, Space(2, 10, 0), 10.0, [5], 0.0)
    assert node.step(0.0, more=True).start[0].slots == (1, 5)


def test_of_what_comes_together_the_biggest_goes_first() -> None:
    """Between batches it is first come, first served."""
    node = placement(4)
    node.add(1, Space(1, 10, 0), 10.0, [1], 0.0)
    node.add(2, Space(3, 10, 0), 10.0, [2], 0.0)
    node.add(3, Space(2, 10, 0), 10.0, [3], 0.0)
    assert started(node.step(0.0)) == [2, 1]


def test_a_large_job_is_not_overtaken_by_what_would_delay_it() -> None:
    """Beside what it waits for runs only what ends before, or what it leaves free."""
    node = placement(4, gpus=2)
    node.add(1, Space(2, 10, 0), 100.0, [1], 0.0)
    assert started(node.step(0.0, more=True)) == [1]
    node.add(2, Space(4, 10, 0), 50.0, [2], 1.0)
    node.add(3, Space(1, 10, 0), 120.0, [3], 2.0)
    node.add(4, Space(1, 10, 0), 90.0, [4], 3.0)
    assert started(node.step(3.0, more=True)) == [4]
    node.ended(1, 50.0)
    node.ended(4, 50.0)
    node.free(node.step(50.0, more=True).reserve, 51.0)
    assert started(node.step(51.0, more=True)) == [2]


def test_what_a_large_job_leaves_free_may_be_taken_for_long() -> None:
    """It needs three of four cores: the fourth is nobody's."""
    node = placement(4)
    node.add(1, Space(2, 10, 0), 100.0, [1], 0.0)
    node.step(0.0)
    node.add(2, Space(3, 10, 0), 50.0, [2], 1.0)
    node.add(3, Space(1, 10, 0), 900.0, [3, 4], 2.0)
    node.free(range(4), 2.0)
    step = node.step(2.0, more=True)
    node.free(step.reserve, 2.0)
    assert started(step) + started(node.step(2.0, more=True)) == [3]


def test_memory_is_never_short_while_event_workers_hold_theirs() -> None:
    """Eight workers of 1000 MiB hold all; a job of one core and 2500 MiB makes three of them go."""
    node = placement(8, free=False)
    node.set_event_memory(1000)
    node.add(1, Space(1, 2500, 0), 10.0, [1], 0.0)
    reserved = node.step(0.0).reserve
    assert len(reserved) == 3
    node.free(sorted(reserved)[:2], 1.0)
    assert started(node.step(1.0)) == []
    node.free(reserved, 2.0)
    assert started(node.step(2.0)) == [1]
    assert node.step(3.0).unreserve == frozenset(), "two cores stay idle: their workers would have no memory"
    node.ended(1, 4.0)
    assert len(node.step(4.0).unreserve) == 3


def test_gpus_are_given_by_index() -> None:
    """Each to one job at a time."""
    node = placement(4, gpus=3)
    node.add(1, Space(1, 10, 1), 10.0, [1, 2, 3, 4], 0.0)
    step = node.step(0.0, more=True)
    assert [p.gpus for p in step.start] == [(0,), (1,), (2,)]
    node.ended(2, 1.0)
    assert node.step(1.0, more=True).start[0].gpus == (1,)


def test_nothing_starts_that_cannot_finish() -> None:
    """What has no time goes back as late."""
    node = placement()
    node.add(1, Space(1, 10, 0), 100.0, [1, 2], 950.0)
    assert node.step(950.0).late == (1, 2)
    assert node.waiting == 0


def test_what_waits_too_long_without_a_place_goes_back() -> None:
    """Unless its slots are on their way: events take their time."""
    node = placement(2)
    node.add(1, Space(2, 10, 0), 100.0, [1], 0.0)
    node.step(0.0)
    node.add(2, Space(1, 10, 0), 1.0, [2, 3], 1.0)
    assert node.step(1.0 + STALE_S - 0.1).stale == ()
    assert set(node.step(1.0 + STALE_S).stale) == {2, 3}
    waiting = placement(2, free=False)
    waiting.add(1, Space(2, 10, 0), 100.0, [1], 0.0)
    assert waiting.step(0.0).reserve == {0, 1}
    assert waiting.step(STALE_S + 1).stale == ()
