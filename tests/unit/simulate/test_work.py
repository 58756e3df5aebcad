"""What cutting work short costs: the closed forms against draws, and the accounts of a pack."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.simulate.work.account import Account, union_steps
from hpcpanda.simulate.work.pack import PackJobs, PackModel
from hpcpanda.simulate.work.workload import Cut, EventWork, JobWork, RangeCosts

EVENTS = EventWork(event_seconds=5.0, spread=0.8, target_seconds=10.0)
JOBS = JobWork(cores=8, median_s=1000.0, p90_s=1500.0, limit_s=4000.0)


def _pack(account: Account, *, slots: int = 0, startup_s: float = 30.0, deadline: float = 1e6) -> PackModel:
    jobs = PackJobs(JOBS, slots=slots, begins=startup_s, deadline=deadline)
    return PackModel(
        RangeCosts(EVENTS),
        EVENTS.event_seconds,
        jobs,
        cores=64,
        begins=0.0,
        startup_s=startup_s,
        sync_s=1.0,
        account=account,
    )


def _in_flight(costs: RangeCosts, instants: int) -> tuple[np.ndarray, np.ndarray]:
    """Age and residual of the ranges in flight on one core, at many instants of a long run that is drawn."""
    rng = np.random.default_rng(1)
    ends = np.cumsum(costs.draw(rng, 400_000))
    at = rng.uniform(ends[1000], ends[-1000], instants)
    place = np.searchsorted(ends, at)
    return at - ends[place - 1], ends[place] - at


def test_a_kill_loses_the_age_of_what_is_in_flight() -> None:
    """The closed form agrees with a renewal process that is drawn range by range."""
    costs = RangeCosts(EVENTS)
    age, _ = _in_flight(costs, 100_000)
    assert costs.killed(0.0).lost == pytest.approx(age.mean(), rel=0.02)
    assert costs.killed(4.0).lost == pytest.approx(age.mean() + 2.0, rel=0.02)


@pytest.mark.parametrize("grace_s", [0.0, 3.0, 10.0, 1000.0])
def test_a_preemption_loses_what_does_not_end_in_the_grace_time(grace_s: float) -> None:
    """Kept and lost agree with drawn ranges, from no grace time to more than any range takes."""
    costs = RangeCosts(EVENTS)
    age, left = _in_flight(costs, 100_000)
    late = left > grace_s
    cut = costs.preempted(grace_s)
    assert cut.lost == pytest.approx(np.where(late, age + grace_s, 0.0).mean(), rel=0.03, abs=0.02)
    assert cut.kept == pytest.approx(np.where(late, -age, left).mean(), rel=0.03, abs=0.05)
    assert cut.after <= grace_s


def test_ranges_of_equal_events_are_exact() -> None:
    """Without any spread a range costs what it should, and a deadline costs half a range of each core."""
    costs = RangeCosts(EventWork(event_seconds=5.0, spread=0.0, target_seconds=10.0))
    assert costs.events == 2
    assert costs.killed(0.0) == Cut(pytest.approx(-5.0), pytest.approx(5.0), 0.0)
    drained = costs.drained(20.0)
    assert drained.kept == pytest.approx(-5.0, rel=0.01)
    assert drained.lost == 0.0
    assert drained.after == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("how", ["killed", "preempted", "drained"])
@pytest.mark.parametrize("at", [10.0, 31.0, 40.0, 500.0, 2000.0])
def test_every_core_second_of_a_pack_is_in_one_account(how: str, at: float) -> None:
    """Whenever a pack with jobs and events ends, and however: useful, lost, start-up, drain and unfilled are its time."""
    account = Account()
    pack = _pack(account, slots=4)
    pack.jobs.give(6, 0.0, np.random.default_rng(3))
    pack.give_events(12_000)
    pack.settle(at / 2)
    if how == "killed":
        pack.killed(at)
        after = 0.0
    else:
        after = pack.preempted(at, 20.0) if how == "preempted" else pack.drained(at, 20.0)
    assert account.total == pytest.approx(64 * (at + after))
    assert account.useful == pytest.approx(account.events * 5.0, abs=1e-6) or account.jobs
    assert min(account.useful, account.lost, account.startup, account.unfilled) >= 0
    assert pack.events == 12_000 - account.events


def test_events_told_before_a_kill_stay_told() -> None:
    """What a pack has reported as journalled is never more than what a kill a moment later keeps."""
    for at in (31.0, 35.0, 60.0, 120.0, 121.3, 400.0):
        account = Account()
        pack = _pack(account)
        pack.give_events(100_000)
        pack.settle(at)
        told = account.events
        pack.killed(at)
        assert account.events == told


def test_a_pack_without_work_left_is_unfilled() -> None:
    """When all events are done the cores are held for nothing, and nothing is lost by the end."""
    account = Account()
    pack = _pack(account)
    pack.give_events(640)
    assert pack.idle_at() == pytest.approx(30.0 + 50.0)
    pack.settle(130.0)
    pack.killed(130.0)
    assert account.events == 640
    assert account.lost == 0.0
    assert account.unfilled == pytest.approx(64 * 50.0)


def test_jobs_start_only_where_their_limit_fits() -> None:
    """A job whose walltime limit ends after the deadline is never begun, however short it would have been."""
    jobs = PackJobs(JOBS, slots=2, begins=0.0, deadline=4500.0)
    jobs.give(10, 0.0, np.random.default_rng(0))
    assert jobs.started == 2
    assert jobs.unstarted == 8
    assert jobs.next_slot == np.inf


def test_a_killed_job_is_lost_as_a_whole() -> None:
    """Jobs have no ranges: all that one has used is lost with it."""
    account = Account()
    pack = _pack(account, slots=8, startup_s=0.0)
    pack.jobs.give(8, 0.0, np.random.default_rng(0))
    pack.killed(200.0)
    assert account.jobs == 0
    assert account.lost == pytest.approx(64 * 200.0)


def test_run_times_have_the_quantiles_asked_for() -> None:
    """The lognormal meets the median and the ninth decile that were measured."""
    times = JobWork().run_times(np.random.default_rng(0), 200_000)
    assert np.quantile(times, [0.5, 0.9]) == pytest.approx([6948.0, 8964.0], rel=0.01)


def test_nodes_held_add_up() -> None:
    """Allocations that touch and overlap make one step function."""
    times, nodes = union_steps([(0.0, 10.0, 2, "ended"), (5.0, 10.0, 3, "ended"), (10.0, 12.0, 1, "ended")])
    assert times.tolist() == [0.0, 5.0, 10.0, 12.0]
    assert nodes.tolist() == [2.0, 5.0, 1.0, 0.0]
