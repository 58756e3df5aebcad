"""EASY backfill of the host's jobs: textbook cases, deep queues, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.machines.host_alone import HostRun, host_schedule
from tests.support.host_jobs import slow_easy, trace_of


def test_a_short_job_overtakes_and_a_long_one_does_not() -> None:
    """While the first waits for all nodes, only what ends before its reservation may start in front of it."""
    trace = trace_of([(0, 6, 100, 100), (1, 10, 50, 50), (2, 4, 200, 200), (3, 4, 90, 90)])
    assert host_schedule(trace).start.tolist() == [0, 100, 150, 3]


def test_a_long_job_starts_on_nodes_that_the_first_will_not_need() -> None:
    """The nodes left over at the reservation are used beyond it, once."""
    trace = trace_of([(0, 6, 100, 100), (1, 7, 50, 50), (2, 3, 500, 500), (3, 1, 500, 500)])
    assert host_schedule(trace).start.tolist() == [0, 100, 2, 150]


def test_jobs_end_after_their_run_time_not_after_the_time_requested() -> None:
    """An early end brings the first waiting job forward, which the reservation did not know."""
    trace = trace_of([(0, 10, 30, 1000), (5, 10, 10, 10)])
    schedule = host_schedule(trace)
    assert schedule.start.tolist() == [0, 30]
    assert schedule.end.tolist() == [30, 40]


def test_a_queue_of_thousands_is_scheduled_as_by_the_slow_rule() -> None:
    """Growth of the queue, gaps in it, and many candidates at once change nothing."""
    random = np.random.default_rng(5)
    count = 1400
    run = random.integers(1, 400, count)
    rows = zip(random.integers(1, 40, count), run, run + random.integers(0, 400, count), strict=True)
    trace = trace_of([(k // 100, int(n), int(r), int(q)) for k, (n, r, q) in enumerate(rows)], nodes=60)
    host = HostRun(trace)
    deepest = 0
    while host.next_time < float("inf"):
        host.step(host.next_time)
        deepest = max(deepest, host.queue.waiting)
    assert deepest > 1300
    assert host.schedule().start.tolist() == slow_easy(trace)


def test_recorded_starts_are_taken_as_they_are() -> None:
    """With recorded backfill the trace's starts are the schedule; a job that never started has none."""
    trace = trace_of([(0, 4, 10, 10), (1, 9, 10, 10)], start=[5, float("nan")])
    schedule = host_schedule(trace, backfill="recorded")
    assert schedule.start[0] == 5
    assert schedule.end[0] == 15
    assert np.isnan(schedule.start[1])
    with pytest.raises(InvalidValue, match="records no starts"):
        host_schedule(trace_of([(0, 1, 1, 1)]), backfill="recorded")


def test_span_leaves_out_what_the_trace_cannot_tell() -> None:
    """Figures begin with the first start and end with the last submission, or with the end where there is but one."""
    trace = trace_of([(0, 4, 10, 10), (60, 9, 100, 100)], start=[5, 70])
    assert host_schedule(trace, backfill="recorded").span(trace) == (5, 60)
    alone = trace_of([(0, 4, 10, 10)])
    assert host_schedule(alone).span(alone) == (0, 10)


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [("nodes", 11, "nodes"), ("nodes", 0, "nodes"), ("run", 0, "run"), ("requested", 5, "requested")],
)
def test_traces_that_break_the_rules_are_refused(column: str, value: int, word: str) -> None:
    """A job that no schedule can hold is named with its value."""
    trace = trace_of([(0, 4, 10, 10), (1, 4, 10, 10)])
    bad = getattr(trace, column).copy()
    bad[1] = value
    with pytest.raises(InvalidValue, match=rf"trace\.{word}: {value} of job 1"):
        host_schedule(replace(trace, **{column: bad}))


def test_jobs_out_of_order_are_refused() -> None:
    """First come, first served needs the order of submission."""
    with pytest.raises(InvalidValue, match="in front of it"):
        host_schedule(trace_of([(5, 1, 1, 1), (2, 1, 1, 1)]))
