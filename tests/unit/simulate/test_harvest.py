"""The simulated edge harvests by the production planner and ledger; its accounts add up; equal seeds give equal figures."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import AllocationSettings, LimitSettings, NodeSettings, SchedulerSettings, Site
from hpcpanda.planning.actions import Plan
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import Situation
from hpcpanda.simulate.harvest import ALL_POLICIES, Host, PolicyName, SimulationOptions, run, simulate
from hpcpanda.simulate.results import HarvestFigures
from hpcpanda.simulate.simulated_edge.books import Books
from hpcpanda.simulate.simulated_edge.edge import SimulatedEdge
from hpcpanda.simulate.trace import HostTrace
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.workload import EventWork, JobWork, Workload
from tests.support.host_jobs import trace_of

HOUR = 3600
WORK = Workload(
    events=EventWork(event_seconds=5.0, target_seconds=10.0),
    jobs=JobWork(cores=4, median_s=900.0, p90_s=1200.0, limit_s=2400.0),
    startup_s=10.0,
)


def _site(nodes: int = 64) -> Site:
    return Site(
        name="tiny",
        spool="/spool",
        nodes=NodeSettings(count=nodes, cores=16, memory_mb=64_000),
        scheduler=SchedulerSettings(poll_seconds=30.0),
        allocation=AllocationSettings(walltime_s=24 * HOUR, margin_s=30.0, grace_s=20.0, lookahead_s=600.0),
        limits=LimitSettings(allocations=20),
    )


def _one_hole(nodes: int = 64, hours: float = 4.0) -> HostTrace:
    """Idle, then full for a minute."""
    end = int(hours * HOUR)
    return trace_of(
        [(0, 1, 1, 1), (end, nodes, 60, 60), (end + 1, 1, 1, 1)], nodes=nodes, start=[0.0, end, end + 60]
    )


def _busy(nodes: int = 64, jobs: int = 40, seed: int = 5) -> HostTrace:
    """A machine with jobs of all sizes, so many that some wait; requested times are twice the real ones."""
    rng = np.random.default_rng(seed)
    submit = np.cumsum(rng.exponential(500.0, jobs)).astype(int)
    rows = zip(
        submit - submit[0], rng.integers(1, nodes // 2, jobs), rng.integers(300, 2400, jobs), strict=True
    )
    return trace_of([(int(s), int(n), int(r), 2 * int(r)) for s, n, r in rows], nodes=nodes)


def _figures(trace: HostTrace, *policies: PolicyName, **options: object) -> tuple[HarvestFigures, ...]:
    chosen = SimulationOptions(workload=WORK, **options)  # type: ignore[arg-type]
    return simulate(
        trace, _site(trace.machine_nodes), policies=policies or ALL_POLICIES, options=chosen
    ).policies


def test_a_single_hole_is_harvested_up_to_its_margins() -> None:
    """Of a hole of four hours all is held but the first poll, the margins and the rounding; nothing of it is lost."""
    (ours,) = _figures(_one_hole(), PolicyName.OURS)
    unheld = 30.0 + 10.0 + 30.0 + 60.0 + 30.0  # poll, cycle, start margin, rounding to minutes, drain margin
    assert ours.harvested_share > 1 - unheld / (4 * HOUR)
    assert ours.lost < 0.001 * ours.held
    assert ours.useful > 0.99 * ours.held - 64 * (WORK.startup_s + 30.0) / HOUR
    assert ours.host.delayed_jobs == 0


@pytest.mark.parametrize("windows", ["truthful", "estimated", "preemptible"])
def test_accounts_add_up_for_every_policy(windows: str) -> None:
    """Useful, lost and overhead are what was held; with truthful windows that is idle time of the host alone."""
    estimated = windows != "truthful"
    found = _figures(
        _busy(),
        windows="estimated" if estimated else "truthful",
        preemptible=windows == "preemptible",
    )
    assert len(found) == len(ALL_POLICIES)
    for figures in found:
        total = figures.useful + figures.lost + figures.overhead
        assert total == pytest.approx(figures.held + figures.displaced, rel=1e-6, abs=1e-6), figures.policy
        assert figures.overhead == pytest.approx(figures.startup + figures.drain + figures.unfilled)
        idle = (1 - figures.host.utilisation_before) * figures.host.nodes * figures.host.days * 24
        assert 0 <= figures.held <= idle + 1e-6
        assert figures.held > 0 or figures.policy != "ours"
        if not estimated:
            assert figures.displaced == pytest.approx(0.0, abs=1e-9)
            assert figures.host.delayed_jobs == 0


def test_a_preempting_host_waits_for_the_grace_time_at_most() -> None:
    """Preemptions happen, cost us something, and delay no host job by more than the grace time."""
    (ours,) = _figures(_busy(), PolicyName.OURS, windows="estimated", preemptible=True)
    assert ours.preempted > 0
    assert ours.host.delay_max_s <= _site().allocation.grace_s + 1e-6
    assert ours.lost < 0.05 * ours.held


def test_equal_seeds_give_equal_figures() -> None:
    """Twice the same simulation tells twice the same; another seed does not."""
    policies = (PolicyName.OURS_WITHOUT_EVENTS, PolicyName.FIXED_PILOTS)
    first, again, other = (
        [asdict(f) for f in _figures(_busy(), *policies, failures_per_node_hour=0.01, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_every_finished_event_is_accepted_once_under_kills(share: float) -> None:
    """Nodes fail and hosts preempt; in the end the ledgers agree with the accounts, event by event and job by job."""
    work = Workload(events=WORK.events, jobs=WORK.jobs, job_share=share, startup_s=10.0)
    options = SimulationOptions(
        windows="estimated", preemptible=True, failures_per_node_hour=0.05, workload=work
    )
    site, trace = _site(), _busy(jobs=60)
    host = Host.of(trace, options)
    edge = SimulatedEdge(site, work, np.random.default_rng(0))
    run(host.machine(site, options), edge, host.span)
    assert edge.account.failed + edge.account.killed_at_wall > 0
    assert edge.account.preempted > 0
    books = edge.ledgers
    assert len(books["events"].done) == edge.account.events > 0
    if share:
        assert len(books["jobs"].done) == edge.account.jobs > 0
    for ledger in books.values():
        ledger.validate()
        assert not ledger.leased, "a pack that is gone still holds something"


def test_a_plan_sees_every_allocation_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views are kept from one plan of a look to the next: none of them is ever another than one that is made anew."""
    work = Workload(events=WORK.events, jobs=WORK.jobs, job_share=0.3, startup_s=10.0)
    options = SimulationOptions(
        windows="estimated", preemptible=True, failures_per_node_hour=0.05, workload=work
    )
    site, trace = _site(), _busy()
    host = Host.of(trace, options)
    edge = SimulatedEdge(site, work, np.random.default_rng(0))
    again = []

    def look(situation: Situation) -> Plan:
        held, books = edge._held.alive.values(), edge._books
        assert situation.allocations == tuple(a.view(site, books, situation.now) for a in held)
        again.append(situation.now)
        return make_plan(situation)

    monkeypatch.setattr("hpcpanda.simulate.simulated_edge.edge.make_plan", look)
    run(host.machine(site, options), edge, host.span)
    assert len(set(again)) < len(again), "no look had more than one plan"


def test_events_make_more_of_holes_than_jobs() -> None:
    """The same planner with jobs alone leaves what is too short for their time limits."""
    ours, jobs = _figures(_one_hole(hours=1.0), PolicyName.OURS, PolicyName.OURS_WITHOUT_EVENTS)
    assert ours.useful > 1.3 * jobs.useful > 0
    assert jobs.events_finished == 0 < jobs.jobs_finished


def test_books_refuse_to_finish_what_a_pack_has_not() -> None:
    """Events go to one pack at a time, come back when it is gone, and are reported once."""
    books = Books(1000, Account(), 5.0)
    assert books.acquire(100, 0.0) == 100
    assert books.hand_out("a", 60) == 60
    assert books.hand_out("b", 60) == 40
    books.finish("a", 50, 10.0)
    books.release("a")
    assert (books.held("a"), books.ready) == (0, 10)
    assert books.hand_out("b", 60) == 10
    books.finish("b", 50, 20.0)
    assert len(books.ledger.done) == 100
    with pytest.raises(IndexError):
        books.finish("b", 1, 30.0)
    books.acquire(10, 30.0)
    books.give_back()
    books.validate()
    assert len(books.ledger.ready) == 900


def test_what_makes_no_sense_is_refused() -> None:
    """Preemption with known futures, more nodes than the machine has, jobs larger than a node."""
    with pytest.raises(InvalidValue, match="estimated windows"):
        SimulationOptions(preemptible=True)
    with pytest.raises(InvalidValue, match="may hold 64 nodes"):
        simulate(_busy(nodes=32), _site(64))
    big = SimulationOptions(workload=Workload(jobs=JobWork(cores=32)))
    with pytest.raises(InvalidValue, match="does not fit a node"):
        simulate(_one_hole(), _site(), options=big)
    with pytest.raises(InvalidValue, match="leaves nothing to events"):
        Workload(job_share=1.0)


def test_progress_is_told() -> None:
    """Who waits sees every policy begin, go on and end."""
    told: list[tuple[str, float]] = []
    simulate(
        _one_hole(),
        _site(),
        policies=[PolicyName.TITAN],
        options=SimulationOptions(workload=WORK),
        progress=lambda name, done: told.append((name, done)),
    )
    assert {name for name, _ in told} == {"Titan-style brokers"}
    assert told[-1][1] == 1.0
    assert [done for _, done in told] == sorted(done for _, done in told)
