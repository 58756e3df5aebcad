"""Jobs that were too large go on as two: what each half has, and what is told of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.halving import Halves, long
from hpcpanda.domain.splitting import Unit


def test_a_job_of_one_position_is_not_split() -> None:
    """Nor one of none."""
    assert Halves.of(7, Unit.FILES, (3, 4)) is None
    assert Halves.of(7, Unit.EVENTS, (3, 3)) is None


def test_it_is_told_in_a_sentence() -> None:
    """As its user would say it."""
    even, odd = Halves.of(7, Unit.FILES, (0, 40)), Halves.of(7, Unit.EVENTS, (10, 15))
    assert even is not None
    assert odd is not None
    assert even.said(120, needed="needed more than 2 h") == (
        "job 7 needed more than 2 h; its 40 files go on as two jobs of 20, 7 and 120"
    )
    assert odd.said(8, needed="needed more than 100 MiB of memory") == (
        "job 7 needed more than 100 MiB of memory; its 5 events go on as two jobs of 3 and 2, 7 and 8"
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "0.5 s"), (90.0, "90 s"), (600.0, "10 min"), (5400.0, "1.5 h"), (7200.0, "2 h")],
)
def test_times_are_told_as_people_say_them(seconds: float, said: str) -> None:
    """In the unit that fits."""
    assert long(seconds) == said


@given(st.integers(0, 10**15), st.integers(2, 10**9), st.data())
def test_halving_loses_nothing_and_ends(first: int, count: int, data: st.DataObject) -> None:
    """Both halves together are the whole, neither is empty, and half as many positions at most are left each time: after 30
    times at most 10^9 of them are alone."""
    span = (first, first + count)
    for times in range(31):
        halves = Halves.of(1, Unit.EVENTS, span)
        if halves is None:
            assert span[1] - span[0] == 1
            return
        (a, b), (c, d) = halves.kept, halves.given
        assert (a, d) == span
        assert a < b == c < d
        assert max(b - a, d - c) * 2 <= span[1] - span[0] + 1
        assert times < 30
        span = data.draw(st.sampled_from((halves.kept, halves.given)))
