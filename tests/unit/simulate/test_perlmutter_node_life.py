"""An allocation that streams events under production's rules: nothing lost, nothing twice, every core-second accounted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import EventLedger
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import ProcessPayload
from hpcpanda.domain.site import AllocationSettings, NodeSettings, Site
from hpcpanda.domain.task import RangePolicy, Resources, TaskSpec
from hpcpanda.simulate.perlmutter.node_life import LifeAccount, NodeLife, NodeShape, StreamTask

CORES = 4
WALL_S = 300.0
SETTINGS = AllocationSettings(
    walltime_s=WALL_S, margin_s=20.0, grace_s=5.0, lookahead_s=30.0, linger_s=5.0, sync_s=1.0
)
SHAPE = NodeShape(
    site=Site(
        name="test",
        spool="/spool",
        nodes=NodeSettings(count=9, cores=CORES, memory_mb=4096),
        allocation=SETTINGS,
    ),
    walltime_s=WALL_S,
    startup_s=7.0,
)


def stream_task(costs: list[float], *, range_s: float = 4.0, timeout_s: float = 100.0) -> StreamTask:
    spec = TaskSpec(
        name="t",
        payload=ProcessPayload(command=("simulate",)),
        output=Output(file="o.zip", format=OutputFormat.ZIP),
        events=len(costs),
        ranges=RangePolicy(target_seconds=range_s),
        resources=Resources(range_timeout_s=timeout_s),
    )
    reach = np.concatenate(([0.0], np.cumsum(costs)))
    return StreamTask(spec=spec, ledger=EventLedger.over(IntervalSet.span(0, len(costs))), reach=reach)


def live(task: StreamTask, number: int, lost_at: float = math.inf, cost: float | None = None) -> LifeAccount:
    return NodeLife(task, SHAPE, holder=f"a{number}", lost_at=lost_at, event_seconds=cost).run()


def lognormal(count: int, seed: int, mean: float = 1.0, sigma: float = 0.8) -> list[float]:
    found = np.random.default_rng(seed).lognormal(math.log(mean) - sigma**2 / 2, sigma, count)
    return [float(cost) for cost in found]


def finish(task: StreamTask, most: int = 40) -> list[LifeAccount]:
    accounts: list[LifeAccount] = []
    while not task.ledger.finished:
        accounts.append(live(task, len(accounts)))
        assert len(accounts) < most, "the task does not get on"
    return accounts


@given(
    seed=st.integers(0, 10_000),
    mean=st.floats(0.05, 20.0),
    range_s=st.floats(0.5, 20.0),
    lost=st.lists(st.one_of(st.just(math.inf), st.floats(0.5, 320.0)), min_size=1, max_size=3),
    known=st.one_of(st.none(), st.floats(0.05, 20.0)),
)
@settings(max_examples=30, deadline=None)
def test_every_core_second_and_every_event_is_accounted_for(
    seed: int, mean: float, range_s: float, lost: list[float], known: float | None
) -> None:
    """Whatever is cut off and whenever: core-seconds add up to what was held, useful ones are those of the events done,
    and each event is in one account of the ledger, none leased after the end."""
    task = stream_task(lognormal(400, seed, mean), range_s=range_s, timeout_s=1e4)
    accounts = [live(task, number, at, known) for number, at in enumerate(lost)]
    for account, at in zip(accounts, lost, strict=True):
        assert account.total == pytest.approx(CORES * account.end)
        assert account.end <= min(at, WALL_S - SETTINGS.margin_s + SETTINGS.grace_s)
        assert account.idle >= -1e-6
    task.ledger.validate()
    assert not task.ledger.leased
    done = sum(task.seconds(r.first, r.last) for r in task.ledger.done.ranges())
    assert sum(a.useful for a in accounts) == pytest.approx(done)


def test_all_events_are_finished_once() -> None:
    """What one allocation cannot finish the next ones do; nothing is dropped."""
    task = stream_task(lognormal(5000, 1))
    accounts = finish(task)
    assert len(accounts) > 4
    assert len(task.ledger.done) == 5000
    assert not task.ledger.failed
    assert any(a.given_back for a in accounts)


def test_a_full_allocation_is_well_used() -> None:
    """With events of a second, nearly all between start-up and margin is work."""
    account = live(stream_task(lognormal(3000, 2)), 0)
    window = CORES * (WALL_S - SETTINGS.margin_s - SHAPE.startup_s)
    assert account.useful > 0.97 * window
    assert not account.half_idle


def test_slow_events_finish_too() -> None:
    """Events that take half of an allocation are put off when the time is short, and finished in the end."""
    costs = lognormal(2000, 3)
    for event in range(5, 2000, 200):
        costs[event] = 90.0
    task = stream_task(costs)
    finish(task)
    assert len(task.ledger.done) == 2000


def test_an_endless_event_is_listed_and_all_others_finish() -> None:
    """An event longer than a range may take is halved out, tried three times, and set aside with the reason."""
    costs = lognormal(2000, 4)
    costs[777] = 1e6
    task = stream_task(costs, timeout_s=60.0)
    accounts = finish(task)
    (failure,) = task.ledger.failed.values()
    assert (failure.event, failure.attempts) == (777, 3)
    assert failure.error == "the range took longer than 60.0 s"
    assert len(task.ledger.done) == 1999
    assert sum(a.lost_timeout for a in accounts) >= 3 * 60.0


def test_a_lost_node_costs_what_was_in_flight() -> None:
    """Not more than the ranges in hand and what a sync interval had finished."""
    task = stream_task(lognormal(3000, 5, mean=0.5, sigma=0.3))
    account = live(task, 0, lost_at=150.25, cost=0.5)
    assert account.end == 150.25
    longest = 3 * 4.0
    assert 0 < account.lost_node < CORES * (longest + SETTINGS.sync_s)
    assert account.lost_drain == 0.0


def test_a_node_lost_before_its_first_event_costs_its_startup_only() -> None:
    """Nothing was leased."""
    account = live(stream_task([1.0] * 10), 0, lost_at=3.0)
    assert account.startup == account.total == CORES * 3.0
    assert account.leases == 0


def test_an_allocation_without_work_ends_early() -> None:
    """A task of a few events does not hold the node to the wall."""
    task = stream_task([1.0] * 20)
    account = live(task, 0)
    assert task.ledger.finished
    assert account.end < 60.0
