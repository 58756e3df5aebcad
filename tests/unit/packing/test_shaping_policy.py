"""The policy of requests: preemptible queues, urgent work, learnt waits, what is worth asking for, and a reason each."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.packing.forecast import Forecast, QueueWait
from hpcpanda.packing.requests import (
    Held,
    LooseWork,
    RefusalReason,
    RequestPlan,
    RequestReason,
    RequestRules,
    WorkAtHand,
    plan_requests,
)
from hpcpanda.packing.rigid import RigidJob
from hpcpanda.packing.windows import BackfillWindow

RULES = RequestRules(
    allocations=4, nodes=320, longest_s=14_400.0, shortest_s=120.0, drain_s=60.0, step_s=60.0
)
MUCH = WorkAtHand(loose=(LooseWork(nodes=1000),))
URGENT = WorkAtHand(loose=(LooseWork(nodes=1000, urgent=True),))


def window(nodes: int, seconds: float | None) -> BackfillWindow:
    return BackfillWindow(queue=None, nodes=nodes, seconds=seconds)


def shapes(plan: RequestPlan) -> list[tuple[int, float]]:
    return [(r.nodes, r.walltime_s) for r in plan.requests]


def reasons(plan: RequestPlan) -> list[str]:
    return [r.reason.value for r in plan.requests]


def refused(plan: RequestPlan) -> list[RefusalReason]:
    return [r.reason for r in plan.refusals]


# ---- worth ----


def test_a_hole_of_which_less_than_half_would_be_useful_is_left() -> None:
    """120 s less a drain of 60 s and a start-up of 20 s: a third of it; told with the share."""
    plan = plan_requests((window(8, 160.0),), RULES, MUCH, forecast=Forecast(startup_s=20.0))
    assert reasons(plan) == ["no-window"]
    assert refused(plan)[0] is RefusalReason.WINDOW_NOT_WORTH
    assert "33% of its time would be useful" in plan.refusals[0].sentence
    assert shapes(plan_requests((window(8, 160.0),), RULES, MUCH))[0] == (8, 120.0)


def test_start_up_keeps_long_pieces_out_of_a_hole() -> None:
    """A piece of 600 s fits into 660 s of useful time, but not behind a start-up of 90 s."""
    work = WorkAtHand(loose=(LooseWork(nodes=9, seconds=600.0),))
    assert shapes(plan_requests((window(8, 760.0),), RULES, work)) == [(8, 720.0)]
    plan = plan_requests((window(8, 760.0),), RULES, work, forecast=Forecast(startup_s=90.0))
    assert reasons(plan) == ["no-window"]
    assert refused(plan)[0] is RefusalReason.WINDOW_UNSUITABLE


def test_rigid_work_leaves_longer_holes_to_others_where_slots_allow() -> None:
    """Ten nodes for the job; the two that are left have no known end, so they are held for an hour. With one slot it takes all that lasts so long."""
    work = replace(MUCH, rigid=(RigidJob(nodes=10, seconds=300.0),))
    holes = (window(8, None), window(4, 500.0))
    assert shapes(plan_requests(holes, RULES, work)) == [(10, 420.0), (2, 3600.0)]
    assert shapes(plan_requests(holes, replace(RULES, allocations=1), work)) == [(12, 420.0)]


def test_many_equal_rigid_jobs_are_placed_by_their_number() -> None:
    """Three of five fit side by side into the hole; two stay, and wait in no queue while there was a hole."""
    work = WorkAtHand(rigid=(RigidJob(nodes=10, seconds=300.0, count=5),))
    plan = plan_requests((window(35, 900.0),), RULES, work)
    assert shapes(plan) == [(30, 840.0)]
    assert RefusalReason.NO_WORK not in refused(plan)


# ---- preemptible ----


def test_a_preemptible_queue_is_asked_for_the_longest_walltime_in_any_hole() -> None:
    """The centre ends it when it needs the nodes; the hole's end only says when that will be."""
    rules = replace(RULES, preemptible=True, grace_s=20.0)
    plan = plan_requests((window(8, 1000.0),), rules, MUCH)
    assert shapes(plan)[0] == (8, 14_400.0)
    assert reasons(plan)[0] == "preemptible"
    assert plan.requests[0].numbers["useful_share"] == pytest.approx(980 / 1000)
    held = [Held(nodes=8, seconds=14_400.0, queued=True, in_window=True)]
    assert shapes(plan_requests((window(8, 1000.0),), rules, MUCH, held)) == []


def test_pieces_longer_than_the_hole_are_not_begun_in_a_preemptible_queue() -> None:
    """They would be cut for certain."""
    rules = replace(RULES, preemptible=True, grace_s=20.0)
    work = WorkAtHand(loose=(LooseWork(nodes=8, seconds=2000.0),))
    plan = plan_requests((window(8, 1000.0),), rules, work)
    assert reasons(plan) == ["no-window"]


def test_a_hazard_splits_what_is_idle_into_several_requests() -> None:
    """So that one preemption does not end all; never into more than there are slots."""
    rules = replace(RULES, preemptible=True, grace_s=20.0, allocations=8)
    often = Forecast(preemptions_per_node_hour=0.05, startup_s=30.0)
    plan = plan_requests((window(64, None),), rules, MUCH, forecast=often)
    assert 1 < len(plan.requests) <= 8
    assert sum(r.nodes for r in plan.requests) == 64


# ---- urgency and the queue ----


def test_urgent_work_has_a_request_in_the_queue_beside_its_holes() -> None:
    """A slot is kept for it; work that can wait only fills the holes."""
    holes = tuple(window(4, 1000.0 + 300 * i) for i in range(5))
    assert reasons(plan_requests(holes, RULES, URGENT)).count("urgent") == 1
    assert len(plan_requests(holes, RULES, URGENT).requests) == 4
    assert None not in [r.window for r in plan_requests(holes, RULES, MUCH).requests]
    one = plan_requests(holes, replace(RULES, allocations=1), URGENT)
    assert [r.window is not None for r in one.requests] == [True]


def test_urgent_work_keeps_no_more_in_the_queue_than_the_site_allows() -> None:
    """Two may wait; with both there the third is refused, and says so."""
    rules = replace(RULES, queued=2, most_nodes=16)
    assert shapes(plan_requests((), rules, URGENT)) == [(16, 14_400.0)] * 2
    assert shapes(plan_requests((), rules, MUCH)) == [(16, 14_400.0)]
    held = [Held(nodes=16, seconds=14_400.0, queued=True)] * 2
    plan = plan_requests((), rules, URGENT, held)
    assert refused(plan) == [RefusalReason.ALREADY_QUEUED]
    assert "2 requests wait" in plan.refusals[0].sentence


SMALL = QueueWait(nodes=4, seconds=7200.0, median_s=300.0, p90_s=3000.0, seen=20)
LARGE = QueueWait(nodes=400, seconds=14_400.0, median_s=40_000.0, p90_s=90_000.0, seen=20)


def test_the_shape_for_the_queue_is_the_one_that_brings_most_for_its_wait() -> None:
    """A wide allocation is worth a long wait, but not any."""
    plan = plan_requests(None, RULES, MUCH, forecast=Forecast(queue_waits=(SMALL, LARGE)))
    assert shapes(plan) == [(320, 14_400.0)]
    never = replace(LARGE, median_s=5e6)
    plan = plan_requests(None, RULES, MUCH, forecast=Forecast(queue_waits=(SMALL, never)))
    assert shapes(plan) == [(4, 7200.0)]
    assert plan.requests[0].numbers["wait_s"] == 300.0
    assert "300 s" in plan.requests[0].sentence


def test_what_waits_beside_windows_is_small() -> None:
    """A twentieth of the nodes, so that windows that come can be filled; all of them where nothing is known of windows,
    where work is urgent, or as many as an MPI job needs."""
    assert shapes(plan_requests((), RULES, MUCH)) == [(16, 14_400.0)]
    assert shapes(plan_requests(None, RULES, MUCH)) == [(320, 14_400.0)]
    assert shapes(plan_requests((), RULES, URGENT)) == [(320, 14_400.0)]
    wide = replace(MUCH, rigid=(RigidJob(nodes=200, seconds=300.0),))
    assert shapes(plan_requests((), RULES, wide))[0][0] == 200


def test_a_window_without_a_known_end_is_held_for_an_hour_at_most() -> None:
    """The centre's next job may come at any time; where it can preempt, it need not wait."""
    assert shapes(plan_requests((window(8, None),), RULES, MUCH)) == [(8, 3600.0)]
    assert shapes(plan_requests((window(8, None),), replace(RULES, preemptible=True), MUCH)) == [
        (8, 14_400.0)
    ]


def test_urgent_work_gets_the_shape_in_which_it_is_finished_first() -> None:
    """Little of it in the small one that starts soon, much of it in the large one."""
    forecast = Forecast(queue_waits=(SMALL, LARGE))
    little = WorkAtHand(loose=(LooseWork(nodes=300, node_seconds=4000.0, urgent=True),))
    assert shapes(plan_requests((), RULES, little, forecast=forecast)) == [(4, 7200.0)]
    much = WorkAtHand(loose=(LooseWork(nodes=300, node_seconds=4e6, urgent=True),))
    assert shapes(plan_requests((), RULES, much, forecast=forecast))[0] == (300, 14_400.0)


def test_a_quick_queue_is_better_than_the_least_of_the_holes() -> None:
    """With one slot and a queue of five minutes, four nodes for hours beat one for ten minutes."""
    rules = replace(RULES, allocations=1)
    quick = Forecast(queue_waits=(replace(SMALL, nodes=320, seconds=14_400.0),))
    plan = plan_requests((window(1, 700.0),), rules, MUCH, forecast=quick)
    assert reasons(plan) == ["short-wait"]
    plan = plan_requests((window(1, 700.0),), rules, MUCH)
    assert reasons(plan) == ["fills-window"]
    slow = Forecast(queue_waits=(replace(SMALL, nodes=320, seconds=14_400.0, median_s=1e7),))
    assert reasons(plan_requests((window(1, 700.0),), rules, MUCH, forecast=slow)) == ["fills-window"]


def test_missed_windows_put_off_the_next() -> None:
    """Meanwhile one request waits in the queue, and the reason is told with its seconds."""
    plan = plan_requests((window(8, 1000.0),), RULES, MUCH, missed_for_s=45.0)
    assert reasons(plan) == ["no-window"]
    assert refused(plan)[0] is RefusalReason.WINDOWS_MISSED
    assert plan.refusals[0].numbers["seconds"] == 45.0


def test_an_allocation_that_began_after_the_look_uses_up_its_hole() -> None:
    """The windows are older than it, and still have its nodes."""
    held = [Held(nodes=8, seconds=900.0, unseen=True)]
    assert shapes(plan_requests((window(8, 1000.0),), RULES, MUCH, held)) == [(16, 14_400.0)]
    held = [Held(nodes=8, seconds=900.0)]
    assert shapes(plan_requests((window(8, 1000.0),), RULES, MUCH, held)) == [(8, 960.0)]


# ---- whatever comes in ----

rules_ = st.builds(
    RequestRules,
    allocations=st.integers(1, 6),
    nodes=st.integers(1, 50),
    fewest_nodes=st.integers(1, 3),
    most_nodes=st.none() | st.integers(3, 30),
    longest_s=st.floats(600, 1e5),
    shortest_s=st.floats(1, 600),
    drain_s=st.floats(0, 500),
    start_margin_s=st.floats(0, 300),
    step_s=st.sampled_from([1.0, 60.0]),
    queued=st.integers(1, 3),
    least_share=st.floats(0, 1),
    preemptible=st.booleans(),
    grace_s=st.floats(0, 100),
)
holes_ = st.lists(
    st.builds(
        BackfillWindow, queue=st.none(), nodes=st.integers(1, 40), seconds=st.none() | st.floats(1, 1e5)
    ),
    max_size=8,
)
work_ = st.builds(
    WorkAtHand,
    loose=st.lists(
        st.builds(LooseWork, nodes=st.integers(1, 100), seconds=st.floats(0, 1e5), urgent=st.booleans()),
        max_size=3,
    ).map(tuple),
    rigid=st.lists(
        st.builds(RigidJob, nodes=st.integers(1, 60), seconds=st.floats(1, 1e5), count=st.integers(1, 9)),
        max_size=4,
    ).map(tuple),
)
held_ = st.lists(
    st.builds(
        Held,
        nodes=st.integers(1, 20),
        seconds=st.floats(0, 1e4),
        queued=st.booleans(),
        in_window=st.booleans(),
        unseen=st.booleans(),
    ),
    max_size=4,
)
waits_ = st.lists(
    st.builds(
        QueueWait,
        nodes=st.integers(1, 64),
        seconds=st.floats(60, 1e5),
        median_s=st.floats(0, 1e6),
        p90_s=st.floats(0, 1e6),
    ),
    max_size=3,
).map(tuple)
forecasts_ = st.builds(
    Forecast,
    startup_s=st.floats(0, 1000),
    preemptions_per_node_hour=st.just(0.0) | st.floats(0, 5),
    queue_waits=waits_,
)


@given(rules=rules_, holes=holes_, work=work_, held=held_, forecast=forecasts_)
def test_limits_and_windows_are_kept_and_every_hole_has_a_word(
    rules: RequestRules, holes: list[BackfillWindow], work: WorkAtHand, held: list[Held], forecast: Forecast
) -> None:
    """Whatever was learnt: never more allocations or nodes than allowed, never more node-time than the windows have
    less the margin, never more in the queue than allowed, and each hole is used, refused, or beyond a limit."""
    plan = plan_requests(holes, rules, work, held, forecast)
    if plan.requests:
        assert len(plan.requests) + len(held) <= rules.allocations
        assert sum(r.nodes for r in plan.requests) + sum(h.nodes for h in held) <= rules.nodes
    fitted = [r for r in plan.requests if r.window is not None]
    for request in plan.requests:
        assert rules.fewest_nodes <= request.nodes <= (rules.most_nodes or request.nodes)
        assert rules.drain_s < request.walltime_s <= rules.longest_s
        assert request.sentence
        assert 0 <= request.numbers["useful_share"] <= 1
    if not rules.preemptible:
        for request in fitted:
            together = sum(r.nodes for r in fitted if r.walltime_s >= request.walltime_s)
            needed = request.walltime_s + rules.start_margin_s - 1e-6
            assert together <= sum(h.nodes for h in holes if h.length >= needed)
    else:
        assert sum(r.nodes for r in fitted) <= sum(h.nodes for h in holes)
    waiting = len(plan.requests) - len(fitted) + sum(h.queued and not h.in_window for h in held)
    assert len(plan.requests) == len(fitted) or waiting <= rules.queued
    limits = {RefusalReason.NO_WORK, RefusalReason.ALLOCATION_LIMIT, RefusalReason.NODE_LIMIT}
    if not limits & set(refused(plan)):
        told = sum(r.window.nodes for r in plan.refusals if r.window is not None)
        used = sum(r.nodes for r in fitted) + sum(h.nodes for h in held if h.queued or h.unseen)
        assert told + used >= sum(h.nodes for h in holes)
    assert all(r.sentence and r.reason.value for r in plan.refusals)


@given(holes=holes_, slots=st.integers(1, 5), least=st.floats(0, 0.9), forecast=st.just(Forecast()))
def test_more_slots_never_harvest_less(
    holes: list[BackfillWindow], slots: int, least: float, forecast: Forecast
) -> None:
    """Of the holes, with events without end."""
    rules = replace(RULES, allocations=slots, nodes=10_000, least_share=least)

    def harvest(rules: RequestRules) -> float:
        found = plan_requests(holes, rules, WorkAtHand(loose=(LooseWork(nodes=10**6),)), (), forecast)
        return sum(r.nodes * (r.walltime_s - rules.drain_s) for r in found.requests if r.window is not None)

    assert harvest(replace(rules, allocations=slots + 1)) >= harvest(rules) - 1e-6


@given(rules=rules_, holes=holes_, work=work_, held=held_, forecast=forecasts_)
def test_order_decides_nothing(
    rules: RequestRules, holes: list[BackfillWindow], work: WorkAtHand, held: list[Held], forecast: Forecast
) -> None:
    """The same plan from the same holes and allocations told in another order."""
    plan = plan_requests(holes, rules, work, held, forecast)
    assert plan_requests(holes[::-1], rules, work, held[::-1], forecast) == plan


def test_a_window_without_an_end_has_no_seconds_among_the_numbers() -> None:
    """Infinity is no number for JSON."""
    work = WorkAtHand(rigid=(RigidJob(nodes=1, seconds=14_399.0),))
    plan = plan_requests((window(8, None),), RULES, work)
    assert all(inf not in r.numbers.values() for r in (*plan.requests, *plan.refusals))
    assert refused(plan)[0] is RefusalReason.WINDOW_UNSUITABLE
    assert plan.refusals[0].why.code == RequestReason.NO_WINDOW.value or plan.refusals[0].why.sentence
