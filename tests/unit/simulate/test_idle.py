"""What the host leaves idle, on profiles small enough to see."""

from __future__ import annotations

import numpy as np

from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.simulate.machines.host_alone import host_schedule
from hpcpanda.simulate.machines.idle import Held, IdleProfile, holes, idle_profile
from tests.support.host_jobs import trace_of


def profile(*steps: tuple[float, int]) -> IdleProfile:
    """Idle nodes from these times on."""
    return IdleProfile(
        times=np.array([t for t, _ in steps], dtype=float), idle=np.array([n for _, n in steps])
    )


def window(nodes: int, seconds: float) -> BackfillWindow:
    """In the default queue."""
    return BackfillWindow(queue=None, nodes=nodes, seconds=seconds)


def test_profile_counts_what_runs() -> None:
    """Each start takes nodes, each end gives them back, equal steps are joined."""
    trace = trace_of([(0, 4, 10, 10), (5, 6, 10, 10), (10, 4, 20, 20)])
    found = idle_profile(trace, host_schedule(trace))
    assert found.times.tolist() == [0, 5, 15, 30]
    assert found.idle.tolist() == [6, 0, 6, 10]
    assert found.node_seconds(3, 20) == 2 * 6 + 5 * 6


def test_jobs_that_never_ran_take_nothing_and_records_that_overlap_leave_nothing() -> None:
    """A missing start is no use of nodes; more busy nodes than there are leave none idle, not fewer than none."""
    trace = trace_of([(0, 8, 10, 10), (0, 8, 10, 10), (0, 8, 10, 10)], start=[0, 5, float("nan")])
    found = idle_profile(trace, host_schedule(trace, backfill="recorded"))
    assert [found.at(t) for t in (0, 5, 10, 15)] == [2, 0, 2, 10]


def test_windows_are_told_from_the_future() -> None:
    """Each drop ahead ends a window of that many nodes; what comes back later is not counted; the horizon is the rest."""
    found = profile((0, 8), (100, 5), (150, 9), (200, 2), (1000, 0))
    assert found.windows_at(50, horizon_s=500) == (window(2, 500), window(3, 150), window(3, 50))
    assert found.windows_at(50, horizon_s=951) == (window(2, 950), window(3, 150), window(3, 50))
    assert found.windows_at(1000, horizon_s=500) == ()


def test_windows_leave_out_what_is_held() -> None:
    """Nodes that we hold are not told, and are told again from the time when we give them back."""
    found = profile((0, 8), (100, 5), (200, 2))
    held = Held([(60.0, 3), (150.0, 2)])
    assert found.windows_at(50, horizon_s=500, held=held) == (window(2, 500), window(1, 150))
    assert found.fits(3, 150, 50, held)
    assert not found.fits(3, 151, 50, held)
    assert not found.fits(4, 1, 50, held)
    assert found.windows_at(0, horizon_s=10, held=Held([(60.0, 8)])) == ()


def test_blocked_until_the_last_step_that_has_too_few() -> None:
    """What the host forbids now it forbids until the end of the last step in the way; what it allows begins now."""
    found = profile((0, 8), (100, 5), (150, 9), (200, 2), (300, 3))
    assert found.blocked_until(6, 100, 0) == 0
    assert found.blocked_until(6, 101, 0) == 150
    assert found.blocked_until(3, 201, 0) == 300
    assert found.blocked_until(4, 1000, 0) == float("inf")


def test_next_rise_skips_what_was_foreseen() -> None:
    """Only nodes that become idle are news; drops were told as ends of windows."""
    found = profile((0, 8), (100, 5), (150, 9), (200, 2), (300, 3))
    assert [found.next_rise(t) for t in (0, 149, 150, 299, 300)] == [150, 150, 300, 300, float("inf")]


def test_holes_are_cut_horizontally() -> None:
    """A level that stays idle below a drop is one long hole; levels that end together are one wide hole."""
    found = holes(profile((0, 1), (10, 5), (40, 2), (70, 0), (80, 3)), (0, 100), shortest_s=10)
    rows = list(zip(found.start.tolist(), found.length.tolist(), found.width.tolist(), strict=True))
    assert rows == [(0, 70, 1), (10, 30, 3), (10, 60, 1), (80, 20, 3)]
    assert found.node_seconds == 70 + 90 + 60 + 60


def test_holes_that_are_too_short_are_not_counted() -> None:
    """The shortest length counts as long enough; the span cuts holes."""
    found = holes(profile((0, 1), (10, 5), (40, 2), (70, 0)), (20, 100), shortest_s=50)
    assert (found.start.tolist(), found.length.tolist(), found.width.tolist()) == ([20], [50], [2])
    assert holes(profile((0, 0)), (0, 10)).node_seconds == 0


def test_windows_over_many_steps_are_those_of_all_steps() -> None:
    """Leaving out whole blocks of steps changes neither windows nor what fits, whatever is held."""
    random = np.random.default_rng(2)
    times = np.cumsum(random.integers(1, 9, 3000)).astype(float)
    idle = np.maximum(400 + np.cumsum(random.integers(-9, 10, 3000)), 0)
    found = IdleProfile(times=times, idle=idle)
    for _ in range(200):
        now, horizon = float(random.integers(0, 9000)), float(random.integers(10, 9000))
        held = Held((now + float(random.integers(1, 5000)), int(random.integers(1, 40))) for _ in range(8))
        begins = np.unique(np.concatenate(([now], times[(times > now) & (times < now + horizon)])))
        free = np.array([found.at(t) for t in begins]) - held.at(begins)
        windows = found.windows_at(now, horizon_s=horizon, held=held)
        for length in [1.0, *(w.length for w in windows), *(begins[1::97] - now)]:
            least = max(int(free[begins < now + length].min()), 0)
            assert sum(w.nodes for w in windows if w.length >= length) == least
            assert found.fits(least, length, now, held) == (
                least > 0 or free[begins < now + length].min() == 0
            )
            assert not found.fits(least + 1, length, now, held)
