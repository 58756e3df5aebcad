"""Sets of backfill windows: added up, used up, turned around."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.packing.windows import (
    BackfillWindow,
    merge,
    nodes_for,
    order,
    rectangles,
    shorten,
    staircase,
    subtract,
)

queues = st.sampled_from([None, "a", "b"])
lengths = st.none() | st.sampled_from([1.0, 60.0, 3600.0]) | st.floats(0.01, 1e9)
windows = st.lists(
    st.builds(BackfillWindow, queue=queues, nodes=st.integers(1, 100), seconds=lengths), max_size=12
).map(tuple)


def window(nodes: int, seconds: float | None, queue: str | None = None) -> BackfillWindow:
    """A window in few words."""
    return BackfillWindow(queue=queue, nodes=nodes, seconds=seconds)


def total(found: tuple[BackfillWindow, ...], queue: str | None) -> int:
    """Nodes of all windows of a queue."""
    return nodes_for(found, queue, 0.0)


@pytest.mark.parametrize(
    ("nodes", "seconds"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -1.0), (1, float("nan")), (1, 1e11)]
)
def test_impossible_windows_are_refused(nodes: int, seconds: float) -> None:
    """A window has nodes, and a length that makes sense."""
    with pytest.raises(InvalidValue):
        window(nodes, seconds)


def test_the_default_queue_has_no_name() -> None:
    """An empty name would be a second word for the default queue."""
    with pytest.raises(InvalidValue):
        window(1, 1.0, "")


@given(windows)
def test_merging_loses_no_node(found: tuple[BackfillWindow, ...]) -> None:
    """For any length the merged windows have as many nodes as before, one window a length."""
    merged = merge(found)
    assert len({(w.queue, w.seconds) for w in merged}) == len(merged)
    for w in found:
        assert nodes_for(merged, w.queue, w.length) == nodes_for(found, w.queue, w.length)
    assert merged == order(merged) == merge(reversed(found))


@given(windows, queues, st.integers(0, 200), st.floats(0.01, 1e9))
def test_what_is_used_is_gone(
    found: tuple[BackfillWindow, ...], queue: str | None, nodes: int, seconds: float
) -> None:
    """Exactly so many nodes fewer, as far as there are any; other queues keep theirs, and no window grows."""
    left = subtract(found, queue, nodes, seconds)
    assert total(left, queue) == max(0, total(found, queue) - nodes)
    for other in {None, "a", "b"} - {queue}:
        assert total(left, other) == total(found, other)
    for w in found:
        assert nodes_for(left, w.queue, w.length) <= nodes_for(found, w.queue, w.length)


def test_short_windows_are_used_before_long_ones() -> None:
    """What fits into the shorter hole leaves the longer one alone."""
    found = (window(4, 100.0), window(4, 1000.0), window(4, None))
    assert subtract(found, None, 5, 500.0) == (window(3, None), window(4, 100.0))
    assert subtract(found, None, 10, 500.0) == (window(2, 100.0),)


@given(windows)
def test_rectangles_and_staircases_are_inverse(found: tuple[BackfillWindow, ...]) -> None:
    """Windows turned into overlapping shapes and back are the same."""
    assert staircase(rectangles(found)) == merge(found)


def test_rectangles_are_the_largest_shapes() -> None:
    """Each length comes with all nodes that last so long."""
    assert rectangles((window(4, 100.0), window(3, None))) == (window(3, None), window(7, 100.0))


@given(windows, st.floats(0, 1e6), st.sampled_from([0.0, 60.0]))
def test_time_passes(found: tuple[BackfillWindow, ...], by: float, step: float) -> None:
    """Windows only shrink, those that are over go, and those without an end stay."""
    left = shorten(found, by=by, step=step)
    assert total(left, "a") <= total(found, "a")
    assert sum(w.nodes for w in left if w.seconds is None) == sum(w.nodes for w in found if w.seconds is None)
    longest = max((w.seconds for w in found if w.seconds), default=0.0)
    assert all(w.seconds is None or w.seconds <= longest - by for w in left)
