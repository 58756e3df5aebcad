"""Times and durations as batch systems print them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hpcpanda_edge.windows.times import clock_duration, ctime_time, iso_time, slurm_duration
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("1:30:00", 5400),
        ("2-0", 172_800),
        ("1-12:30", 131_400),
        ("1-00:00:01", 86_401),
    ],
)
def test_slurm_durations(text: str, seconds: float) -> None:
    """All forms of a Slurm time limit are read."""
    assert slurm_duration(text) == seconds


@pytest.mark.parametrize("text", ["UNLIMITED", "infinite", "N/A", "", "n/a", "-1", "1-", "1:2:3:4", "٣"])
def test_no_duration(text: str) -> None:
    """What is no duration is none."""
    assert slurm_duration(text) is None


def test_pbs_durations() -> None:
    """PBS walltimes are hours, minutes and seconds."""
    assert clock_duration("48:00:30") == 172_830
    assert clock_duration("soon") is None


def test_times_are_utc() -> None:
    """Times carry their zone, so that no hour is missing or comes twice."""
    moment = datetime(2026, 3, 29, 2, 30, tzinfo=UTC)
    assert iso_time("2026-03-29T02:30:00") == moment
    assert ctime_time("Sun Mar 29 02:30:00 2026") == moment
    assert ctime_time(int(moment.timestamp())) == moment
    assert iso_time("2026-02-30T00:00:00") is None


@given(st.text(max_size=40) | st.integers() | st.none() | st.booleans())
def test_anything_else_is_no_time(value: object) -> None:
    """No value raises."""
    for read in (slurm_duration, clock_duration, iso_time):
        read(str(value))
    ctime_time(value)
