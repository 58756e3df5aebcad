"""Interval sets behave as the sets of integers they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.intervals import EMPTY, EventRange, IntervalSet
from hpcpanda.domain.ledger import single_events
from hpcpanda.domain.validation import MAX_EVENTS

events = st.sets(st.integers(0, 120), max_size=120)
spans = st.tuples(st.integers(0, 125), st.integers(1, 40)).map(lambda t: (t[0], t[0] + t[1]))


def members(s: IntervalSet) -> set[int]:
    return {e for r in s.ranges() for e in range(r.first, r.last)}


@given(events, events)
def test_set_operations_are_those_of_integer_sets(a: set[int], b: set[int]) -> None:
    """Union, difference, intersection, subset and length agree with Python's sets, and results are canonical."""
    x, y = single_events(a), single_events(b)
    for ours, theirs in ((x | y, a | b), (x - y, a - b), (x & y, a & b)):
        assert members(ours) == theirs
        assert len(ours) == len(theirs)
        assert ours == IntervalSet(ours.bounds) == single_events(theirs)
    assert x.issubset(y) == (a <= b)


@given(events, spans)
def test_single_ranges_are_added_and_removed(a: set[int], span: tuple[int, int]) -> None:
    """One range is added, removed, covered and overlapped as its integers are."""
    x, r = single_events(a), set(range(*span))
    assert members(x.add(*span)) == a | r
    assert members(x.remove(*span)) == a - r
    assert x.covers(*span) == (r <= a)
    assert x.overlaps(*span) == bool(r & a)
    assert all((e in x) == (e in a) for e in range(130))


@given(events, st.integers(-2, 130))
def test_take_splits_off_the_lowest_events(a: set[int], n: int) -> None:
    """``take`` gives the lowest n events and leaves the others."""
    taken, rest = single_events(a).take(n)
    assert members(taken) == set(sorted(a)[: max(n, 0)])
    assert members(rest) == a - members(taken)


@given(st.lists(spans, max_size=20))
def test_ranges_in_any_order_make_one_set(ranges: list[tuple[int, int]]) -> None:
    """Overlapping, touching and unsorted ranges are joined."""
    expected = {e for r in ranges for e in range(*r)}
    assert members(IntervalSet.of(EventRange(*r) for r in ranges)) == expected


@pytest.mark.parametrize("bounds", [(1,), (3, 2), (0, 5, 5, 6), (0, 5, 4, 9), (-1, 3), (0, MAX_EVENTS + 1)])
def test_bounds_that_are_not_a_set_are_refused(bounds: tuple[int, ...]) -> None:
    """Odd, unsorted, touching, overlapping, negative and too large bounds are errors that name the field."""
    with pytest.raises(InvalidValue, match="bounds"):
        IntervalSet(bounds)


@pytest.mark.parametrize("span", [(-1, 3), (3, 3), (5, 2), (0, MAX_EVENTS + 1)])
def test_impossible_ranges_are_refused(span: tuple[int, int]) -> None:
    """Negative, empty, reversed and too large ranges are errors."""
    with pytest.raises(InvalidValue, match="event range"):
        EventRange(*span)


def test_the_largest_event_space_is_one_fragment() -> None:
    """2^63-1 events are counted exactly and cut in one step."""
    space = IntervalSet.span(0, MAX_EVENTS)
    taken, rest = space.take(10**9)
    assert (len(taken), len(rest), rest.fragments) == (10**9, MAX_EVENTS - 10**9, 1)
    assert taken | rest == space
    assert EMPTY.take(5) == (EMPTY, EMPTY)
