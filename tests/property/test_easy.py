"""EASY backfill and the machines built on it keep their promises, whatever jobs come and whatever we ask for."""

from __future__ import annotations

from math import inf

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.simulate.machines.easy import EasyMachine
from hpcpanda.simulate.machines.host_alone import HostRun, host_schedule
from hpcpanda.simulate.machines.host_machine import HostMachine, MachineOptions
from hpcpanda.simulate.machines.idle import holes, idle_profile
from hpcpanda.simulate.machines.preempting import PreemptingMachine
from hpcpanda.simulate.machines.truthful import TruthfulMachine
from hpcpanda.simulate.trace import HostTrace
from tests.support.host_jobs import MACHINE, Ask, asks, drive, host_traces, most_busy, slow_easy, until

GRACE_S = 7.0
EXACT = 1e-6


def machines(trace: HostTrace, options: MachineOptions) -> list[HostMachine]:
    """One of each kind."""
    truthful = TruthfulMachine(trace, host_schedule(trace), options)
    return [truthful, EasyMachine(trace, options), PreemptingMachine(trace, options)]


@given(host_traces())
@settings(max_examples=300, deadline=None)
def test_starts_are_those_of_a_slow_and_plain_easy(trace: HostTrace) -> None:
    """The incremental reservation and the vectorised queue start every job when the textbook's rule does."""
    assert host_schedule(trace).start.tolist() == slow_easy(trace)


@given(host_traces())
@settings(max_examples=100, deadline=None)
def test_every_job_runs_once_for_its_run_time(trace: HostTrace) -> None:
    """All jobs run, none before its submission, each for its run time, on no more nodes than there are."""
    schedule = host_schedule(trace)
    assert (schedule.start >= trace.submit).all()
    assert (schedule.end == schedule.start + trace.run).all()
    assert most_busy(trace, schedule) <= MACHINE


@given(host_traces(), asks)
@settings(max_examples=200, deadline=None)
def test_the_first_waiting_job_starts_by_its_reservation(trace: HostTrace, guests: list[Ask]) -> None:
    """Neither jobs that overtake nor guests with the lowest priority push the first job beyond the time promised."""
    host = HostRun(trace)
    promised: dict[int, float] = {}
    leaving: list[tuple[float, int, float]] = []
    coming = sorted((a for a in guests if a.what == "submit"), key=lambda a: a.at)
    while host.next_time < inf or leaving:
        now = min([host.next_time, *(w[0] for w in leaving)])
        for guest in [g for g in leaving if g[0] <= now]:
            leaving.remove(guest)
            host.queue.release(guest[1], guest[2])
        host.step(now)
        while coming and coming[0].at <= now:
            guest_nodes, walltime = coming[0].nodes, coming.pop(0).walltime
            if host.queue.admits(guest_nodes, walltime, now):
                host.queue.occupy(guest_nodes, now + walltime)
                leaving.append((now + max(walltime // 2, 1), guest_nodes, now + walltime))
        if host.queue.waiting:
            start = host.schedule().start
            first = int(np.argmax(np.isnan(start)))
            assert host.queue.shadow <= promised.get(first, inf)
            promised[first] = host.queue.shadow
    start = host.schedule().start
    assert all(start[job] <= at for job, at in promised.items())


@given(host_traces(), asks, st.sampled_from([0.0, 5.0]), st.sampled_from([0.0, 30.0]))
@settings(max_examples=150, deadline=None)
def test_no_node_is_used_twice(trace: HostTrace, what: list[Ask], cycle_s: float, rate: float) -> None:
    """Host jobs and our allocations together never use more nodes than there are, and all host jobs run."""
    for machine in machines(
        trace, MachineOptions(cycle_s=cycle_s, grace_s=GRACE_S, failures_per_node_hour=rate)
    ):
        drive(machine, what)
        after = machine.finish()
        assert most_busy(trace, after, machine) <= MACHINE
        assert np.allclose(after.end - after.start, trace.run)


@given(host_traces())
@settings(max_examples=60, deadline=None)
def test_without_us_the_host_runs_as_alone(trace: HostTrace) -> None:
    """Every machine that is asked for nothing reproduces the host's own schedule."""
    alone = host_schedule(trace)
    for machine in machines(trace, MachineOptions()):
        assert machine.finish().start.tolist() == alone.start.tolist()


@given(host_traces(), asks, st.sampled_from([0.0, 5.0]), st.sampled_from([0.0, GRACE_S, 50.0]))
@settings(max_examples=300, deadline=None)
def test_preemption_delays_no_host_job_by_more_than_the_grace_time(
    trace: HostTrace, what: list[Ask], cycle_s: float, grace_s: float
) -> None:
    """Against the host alone, each job starts no earlier, and no later than the grace time after."""
    machine = PreemptingMachine(trace, MachineOptions(cycle_s=cycle_s, grace_s=grace_s))
    drive(machine, what)
    delay = machine.finish().start - host_schedule(trace).start
    assert delay.min() >= 0.0
    assert delay.max() <= grace_s + EXACT


@given(host_traces(), asks)
@settings(max_examples=100, deadline=None)
def test_truthful_windows_stay_idle(trace: HostTrace, what: list[Ask]) -> None:
    """What is asked for in the shape of a truthful window starts at once and runs to its wall."""
    machine = TruthfulMachine(trace, host_schedule(trace), MachineOptions())
    for ask in sorted(what, key=lambda a: a.at):
        until(machine, ask.at)
        numbers = [machine.submit(w.nodes, w.seconds) for w in machine.windows() if w.seconds is not None]
        started = machine.advance(machine.now)
        assert [e.allocation for e in started if e.what == "started"] == numbers
        assert machine.windows() == ()
        if ask.what == "end":
            for number in numbers[::2]:
                machine.end(number)
    after = machine.finish()
    assert most_busy(trace, after, machine) <= MACHINE
    assert all(a.end in (a.until, a.start) or a.fate == "ended" for a in machine.allocations)


@given(host_traces(), st.integers(0, 150), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_windows_are_the_levels_of_the_profile(trace: HostTrace, now: int, horizon: int) -> None:
    """As many nodes are told for at least a time as the profile leaves idle, second by second, for that time."""
    profile = idle_profile(trace, host_schedule(trace))
    told = profile.windows_at(now, horizon_s=horizon)
    lowest = MACHINE
    for second in range(horizon):
        lowest = min(lowest, profile.at(now + second))
        assert sum(w.nodes for w in told if w.length > second) == lowest


@given(host_traces(), st.integers(0, 100), st.integers(1, 300), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_holes_are_the_levels_that_stay_idle(
    trace: HostTrace, begin: int, length: int, shortest: int
) -> None:
    """Each level's longest idle intervals, found second by second, are the holes; short ones are left out."""
    profile = idle_profile(trace, host_schedule(trace))
    expected: list[tuple[int, int]] = []
    for level in range(1, MACHINE + 1):
        since: int | None = None
        for second in range(begin, begin + length + 1):
            idle = second < begin + length and profile.at(second) >= level
            if idle and since is None:
                since = second
            elif not idle and since is not None:
                expected += [(since, second - since)] if second - since >= shortest else []
                since = None
    found = holes(profile, (begin, begin + length), shortest_s=shortest)
    rows = zip(found.start.tolist(), found.length.tolist(), found.width.tolist(), strict=True)
    assert sorted((int(s), int(n)) for s, n, width in rows for _ in range(width)) == sorted(expected)


@given(host_traces(), asks, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_equal_runs_tell_equal_events(trace: HostTrace, what: list[Ask], seed: int) -> None:
    """A machine is deterministic by its seed, node failures included."""
    options = MachineOptions(grace_s=GRACE_S, failures_per_node_hour=60.0, seed=seed)
    for one, other in zip(machines(trace, options), machines(trace, options), strict=True):
        assert drive(one, what) == drive(other, what)


@given(host_traces(), asks)
@settings(max_examples=100, deadline=None)
def test_events_tell_the_life_of_each_allocation(trace: HostTrace, what: list[Ask]) -> None:
    """Each allocation starts at most once, is preempted at most once, goes once, in this order, at the times recorded."""
    for machine in machines(trace, MachineOptions(grace_s=GRACE_S)):
        events = drive(machine, what)
        assert [e.at for e in events] == sorted(e.at for e in events)
        for ours in machine.allocations:
            lived = [e for e in events if e.allocation == ours.number]
            words = [e.what for e in lived]
            if ours.fate == "cancelled":
                assert words == ["ended"]
                continue
            expected = ["started"] * (ours.start == ours.start) + ["preempted"] * ours.preempted
            assert words == expected + ([ours.fate] if ours.fate in ("ended", "killed") else [])
            if words[-1:] == ["killed"] and ours.preempted:
                told = next(e.at for e in lived if e.what == "preempted")
                assert ours.end == min(told + GRACE_S, ours.until)
