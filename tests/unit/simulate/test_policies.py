"""The baselines do what their sources say, on traces made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.domain.site import AllocationSettings, LimitSettings, NodeSettings, SchedulerSettings, Site
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.simulate.harvest import Host, SimulationOptions, run
from hpcpanda.simulate.machines.host_machine import HostMachine
from hpcpanda.simulate.policies.pilots import (
    FixedPilots,
    HyperQueueAllocation,
    PilotRules,
    Pilots,
    TitanBrokers,
)
from hpcpanda.simulate.policies.policy import Policy, next_poll
from hpcpanda.simulate.trace import HostTrace
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.workload import JobWork, Workload
from tests.support.host_jobs import trace_of

HOUR = 3600
JOBS = JobWork(cores=8, median_s=1800.0, p90_s=1800.0, limit_s=2000.0)
WORK = Workload(jobs=JOBS, startup_s=0.0)


def _site(*, nodes: int = 400, allocations: int = 100) -> Site:
    return Site(
        name="tiny",
        spool="/spool",
        nodes=NodeSettings(count=nodes, cores=16, memory_mb=64_000),
        scheduler=SchedulerSettings(poll_seconds=30.0),
        allocation=AllocationSettings(walltime_s=24 * HOUR, margin_s=30.0),
        limits=LimitSettings(allocations=allocations),
    )


def _idle(nodes: int, hours: float) -> HostTrace:
    """A machine that is idle for so long, then full for an hour."""
    end = int(hours * HOUR)
    jobs = [(0, nodes, 1, 1), (end, nodes, HOUR, HOUR), (end + 1, 1, 1, 1)]
    return trace_of(jobs, nodes=nodes, start=[0.0, end, end + HOUR])


def _harvest(policy: Policy, trace: HostTrace) -> tuple[Account, HostMachine]:
    options = SimulationOptions(workload=WORK, cycle_s=0.0)
    host = Host.of(trace, options)
    machine = host.machine(_site(nodes=trace.machine_nodes), options)
    run(machine, policy, host.span)
    return policy.account, machine


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_polls_are_on_a_grid() -> None:
    """The next poll is after now and not before what it waits for."""
    assert next_poll(0.0, 30.0, 0.0) == 30.0
    assert next_poll(30.0, 30.0, 95.0) == 120.0
    assert next_poll(31.0, 30.0, 60.0) == 60.0


def test_fixed_pilots_keep_their_number() -> None:
    """As many pilots as the limit allows, all of one shape, and others as soon as they end."""
    account, machine = _harvest(FixedPilots(_site(allocations=5), WORK, _rng(), nodes=2), _idle(400, 10))
    assert {(a.nodes, a.walltime_s) for a in machine.allocations} == {(2, 4.05 * HOUR)}
    first = [a for a in machine.allocations if a.submitted == 300.0]
    assert len(first) == 5
    assert account.requests > 5
    at_once = max(sum(b <= begin < e for b, e, *_ in account.spans) for begin, *_ in account.spans)
    assert at_once == 5


def test_titan_brokers_fill_the_largest_hole() -> None:
    """A broker takes 300 nodes at most, the next one what is left; the walltime is 127 minutes where there is time."""
    _, machine = _harvest(TitanBrokers(_site(), WORK, _rng()), _idle(400, 3))
    first = [a for a in machine.allocations if a.submitted == 300.0]
    assert [(a.nodes, a.walltime_s) for a in first] == [(300, 7620.0), (100, 7620.0)]


def test_titan_brokers_leave_short_and_narrow_holes() -> None:
    """A hole of less than 105 minutes, or of less than 15 nodes, is not used."""
    assert not _harvest(TitanBrokers(_site(), WORK, _rng()), _idle(400, 1.8))[1].allocations
    assert not _harvest(TitanBrokers(_site(nodes=14), WORK, _rng()), _idle(14, 5))[1].allocations


def test_titan_brokers_are_twenty() -> None:
    """Each has one job in the batch system at a time."""
    trace = trace_of([(0, 1, 1, 1), (6 * HOUR, 4000, 60, 60), (6 * HOUR + 1, 1, 1, 1)], nodes=8000)
    trace = trace_of(
        [
            (int(s), int(n), int(r), int(r))
            for s, n, r in zip(trace.submit, trace.nodes, trace.run, strict=True)
        ],
        nodes=8000,
        start=[0.0, 6 * HOUR, 6 * HOUR + 1],
    )
    site = Site(
        name="tiny",
        spool="/spool",
        nodes=NodeSettings(count=8000, cores=16, memory_mb=64_000),
        allocation=AllocationSettings(walltime_s=24 * HOUR),
        limits=LimitSettings(allocations=100),
    )
    options = SimulationOptions(workload=WORK, cycle_s=0.0)
    host = Host.of(trace, options)
    machine = host.machine(site, options)
    run(machine, TitanBrokers(site, WORK, _rng()), host.span)
    assert sum(a.submitted == 300.0 for a in machine.allocations) == 20


def test_hyperqueue_keeps_a_backlog() -> None:
    """No more than the backlog waits in the queue; what runs is not counted."""

    class Full:
        """A batch system in which nothing starts."""

        now = 60.0

        def __init__(self) -> None:
            self.asked: list[tuple[int, float]] = []

        def windows(self) -> tuple[BackfillWindow, ...] | None:
            raise AssertionError("HyperQueue asks for no windows")

        def submit(self, nodes: int, walltime_s: float) -> int:
            self.asked.append((nodes, walltime_s))
            return len(self.asked)

    system = Full()
    policy = HyperQueueAllocation(_site(), WORK, _rng(), backlog=3)
    for _ in range(2):
        policy.act(system)  # type: ignore[arg-type]
    assert system.asked == [(8, 6 * 3600.0)] * 3


def test_a_time_request_keeps_jobs_from_being_killed() -> None:
    """HyperQueue begins no job whose limit ends after the worker's; the pilot with a floor may."""
    rng = _rng()
    account = Account()
    safe = Pilots(PilotRules(latest_start_s=6000.0 - 2000.0), JOBS, 4, 0.0, rng)
    assert safe.ends_after_s == pytest.approx(3 * 1800.0)
    bold = Pilots(PilotRules(latest_start_s=5500.0), JOBS, 4, 0.0, rng)
    assert bold.ends_after_s == pytest.approx(4 * 1800.0)
    bold.close(6000.0, 16, 2, 0.0, account)
    assert account.jobs == 12
    assert account.lost == pytest.approx(4 * 8 * 600.0)
    assert account.total == pytest.approx(2 * 16 * 6000.0)


@pytest.mark.parametrize("held_s", [10.0, 100.0, 1900.0, 9000.0])
def test_accounts_of_pilots_are_their_time(held_s: float) -> None:
    """Whenever pilots end: useful, lost, start-up and unfilled are their nodes' time."""
    account = Account()
    pilots = Pilots(PilotRules(latest_start_s=7000.0), JobWork(), 6, 30.0, _rng())
    pilots.close(held_s, 16, 4, 30.0, account)
    assert account.total == pytest.approx(4 * 16 * held_s)
    assert min(account.useful, account.lost, account.startup, account.unfilled) >= 0
