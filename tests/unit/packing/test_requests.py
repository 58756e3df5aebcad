"""Which allocations are asked for: limits always kept, holes filled, no flood, and reasons for everything."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import (
    AllocationSettings,
    LimitSettings,
    NodeSettings,
    QueueLimits,
    SchedulerSettings,
    Site,
)
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
from hpcpanda.packing.rigid import RigidJob, place_beside
from hpcpanda.packing.windows import BackfillWindow, nodes_for

RULES = RequestRules(allocations=4, nodes=32, longest_s=3600.0, shortest_s=300.0, drain_s=60.0, step_s=60.0)
MUCH = WorkAtHand(loose=(LooseWork(nodes=1000),))


def window(nodes: int, seconds: float | None, queue: str | None = None) -> BackfillWindow:
    """A window in few words."""
    return BackfillWindow(queue=queue, nodes=nodes, seconds=seconds)


def shapes(plan: RequestPlan) -> list[tuple[int, float]]:
    """Nodes and walltimes asked for."""
    return [(r.nodes, r.walltime_s) for r in plan.requests]


def refused(plan: RequestPlan) -> list[RefusalReason]:
    """Reasons of refusal."""
    return [r.reason for r in plan.refusals]


def test_a_hole_is_filled_completely() -> None:
    """All its nodes, as long as it lasts less the margin, in whole minutes."""
    plan = plan_requests((window(8, 1000.0),), RULES, MUCH)
    assert shapes(plan)[0] == (8, 960.0)
    assert plan.requests[0].reason is RequestReason.FILLS_WINDOW
    assert (
        plan.explain()[0] == "8 nodes for 960 s fill the window of 8 nodes for 1000 s in the default queue."
    )


def test_a_hole_without_a_known_end_gets_the_longest_walltime() -> None:
    """No end known means no reason to ask for less than the site allows."""
    assert shapes(plan_requests((window(8, None),), RULES, MUCH))[0] == (8, 3600.0)


def test_the_largest_hole_comes_first() -> None:
    """With room for one allocation it goes where it does the most."""
    rules = replace(RULES, allocations=1)
    plan = plan_requests((window(20, 430.0), window(4, 3000.0)), rules, MUCH)
    assert shapes(plan) == [(4, 2940.0)]
    assert refused(plan) == [RefusalReason.ALLOCATION_LIMIT]


def test_several_holes_are_filled_in_one_round() -> None:
    """What the first request leaves of the holes is filled by the next."""
    plan = plan_requests((window(4, 1000.0), window(4, 3700.0)), RULES, MUCH)
    assert shapes(plan) == [(4, 3600.0), (4, 960.0)]


def test_the_node_limit_cuts_a_request_and_says_so() -> None:
    """A hole wider than the limit is used as far as allowed."""
    plan = plan_requests((window(100, None),), RULES, MUCH, [Held(nodes=20, seconds=10.0)])
    assert shapes(plan) == [(12, 3600.0)]
    assert plan.requests[0].reason is RequestReason.PART_OF_WINDOW
    assert "limits of nodes" in plan.requests[0].sentence
    assert refused(plan) == [RefusalReason.NODE_LIMIT]


def test_little_work_takes_few_nodes() -> None:
    """No more nodes than the work keeps busy, but all of the time: more work is fetched meanwhile."""
    work = WorkAtHand(loose=(LooseWork(nodes=1), LooseWork(nodes=2)))
    plan = plan_requests((window(8, None),), RULES, work)
    assert shapes(plan) == [(3, 3600.0)]
    assert plan.requests[0].reason is RequestReason.PART_OF_WINDOW
    assert "work at hand" in plan.requests[0].sentence
    assert refused(plan) == [RefusalReason.NO_WORK]
    assert refused(plan_requests(None, RULES, WorkAtHand())) == [RefusalReason.NO_WORK]


def test_work_goes_into_holes_that_its_longest_piece_fits() -> None:
    """A job of 800 s leaves the hole of 700 s to events, and gets a request of its own where there is room."""
    work = WorkAtHand(loose=(LooseWork(nodes=4, seconds=800.0), LooseWork(nodes=2)))
    plan = plan_requests((window(8, 700.0),), RULES, work)
    assert shapes(plan) == [(2, 660.0)]
    assert refused(plan)[-1] is RefusalReason.ALREADY_QUEUED
    plan = plan_requests((window(8, 700.0), window(4, 1000.0)), RULES, work)
    assert shapes(plan) == [(4, 960.0), (2, 660.0)]


def test_a_request_keeps_the_limits_of_one_allocation() -> None:
    """Wide holes are asked for in parts; where fewer nodes are left than one must have, nothing is."""
    rules = replace(RULES, fewest_nodes=3, most_nodes=4)
    plan = plan_requests((window(10, 1000.0),), rules, MUCH)
    assert shapes(plan) == [(4, 960.0), (4, 960.0)]
    assert "limits of nodes" in plan.requests[0].sentence
    little = WorkAtHand(loose=(LooseWork(nodes=1),))
    assert shapes(plan_requests((window(10, 1000.0),), rules, little)) == [(3, 960.0)]
    plan = plan_requests((window(10, None),), rules, MUCH, [Held(nodes=30, seconds=10.0)])
    assert refused(plan) == [RefusalReason.NODE_LIMIT]


def test_what_is_queued_already_uses_up_its_hole() -> None:
    """A hole is not asked for twice while the first request has not started."""
    held = [Held(nodes=8, seconds=960.0, queued=True, in_window=True)]
    plan = plan_requests((window(8, 1000.0),), RULES, MUCH, held)
    assert shapes(plan) == []
    assert refused(plan) == [RefusalReason.ALREADY_QUEUED]


def test_what_waits_for_more_than_a_hole_leaves_the_hole_to_others() -> None:
    """A request of 20 nodes in the queue does not keep a short one from 8 free nodes."""
    held = [Held(nodes=20, seconds=3600.0, queued=True)]
    assert shapes(plan_requests((window(8, 1000.0),), RULES, MUCH, held)) == [(8, 960.0)]


def test_without_knowledge_of_windows_the_default_shape_is_asked_for_once() -> None:
    """One request of the site's shape waits in the queue, and no second one."""
    plan = plan_requests(None, RULES, MUCH)
    assert shapes(plan) == [(32, 3600.0)]
    assert plan.requests[0].reason is RequestReason.WINDOWS_UNKNOWN
    rules = replace(RULES, nodes=100)
    held = [Held(nodes=32, seconds=3600.0, queued=True)]
    plan = plan_requests(None, rules, MUCH, held)
    assert shapes(plan) == []
    assert refused(plan) == [RefusalReason.ALREADY_QUEUED]


def test_a_running_allocation_does_not_keep_one_from_waiting() -> None:
    """Once the waiting one runs, the next may wait."""
    plan = plan_requests(None, replace(RULES, nodes=100), MUCH, [Held(nodes=32, seconds=3600.0)])
    assert shapes(plan) == [(68, 3600.0)]


def test_no_usable_window_leaves_one_request_waiting() -> None:
    """A machine known to be full gets one request, with the reason why each hole was not used."""
    plan = plan_requests((window(3, 200.0),), RULES, MUCH)
    assert [r.reason for r in plan.requests] == [RequestReason.NO_WINDOW]
    assert refused(plan)[0] is RefusalReason.WINDOW_TOO_SHORT
    assert "too short" in plan.refusals[0].sentence


def test_rigid_work_goes_where_it_fits() -> None:
    """A job of many nodes takes the wide hole even if another is larger."""
    work = replace(MUCH, rigid=(RigidJob(nodes=10, seconds=300.0),))
    plan = plan_requests((window(8, None), window(4, 500.0)), replace(RULES, allocations=1), work)
    assert shapes(plan) == [(12, 420.0)]


def test_rigid_work_alone_takes_no_more_than_it_needs() -> None:
    """Without events to fill in, the shape is that of the job."""
    work = WorkAtHand(rigid=(RigidJob(nodes=10, seconds=600.0),))
    assert shapes(plan_requests((window(30, None),), RULES, work)) == [(10, 660.0)]


def test_rigid_work_that_fits_nowhere_is_refused() -> None:
    """A job larger than the site allows leads to no request, and the reason is told."""
    work = WorkAtHand(rigid=(RigidJob(nodes=33, seconds=600.0),))
    plan = plan_requests((window(30, None),), RULES, work)
    assert shapes(plan) == []
    assert set(refused(plan)) == {RefusalReason.WINDOW_UNSUITABLE}


def test_the_rules_of_a_site() -> None:
    """A site file's limits and shape become the rules' bounds."""
    site = Site(
        name="s",
        spool="/s",
        nodes=NodeSettings(count=64, cores=128, memory_mb=1000),
        scheduler=SchedulerSettings(executor="slurm", queue="regular"),
        allocation=AllocationSettings(walltime_s=7200.0, margin_s=120.0),
        limits=LimitSettings(allocations=3, nodes=20),
        queue=QueueLimits(min_nodes=2, max_nodes=20),
    )
    rules = RequestRules.of_site(site)
    assert (rules.allocations, rules.nodes, rules.queue) == (3, 20, "regular")
    assert (rules.fewest_nodes, rules.most_nodes) == (2, 20)
    assert (rules.longest_s, rules.shortest_s, rules.drain_s, rules.step_s) == (7200.0, 240.0, 120.0, 60.0)
    with pytest.raises(InvalidValue):
        replace(rules, drain_s=7200.0)


rules_ = st.builds(
    RequestRules,
    allocations=st.integers(1, 6),
    nodes=st.integers(1, 50),
    fewest_nodes=st.integers(1, 4),
    most_nodes=st.none() | st.integers(4, 30),
    longest_s=st.floats(600, 1e5),
    shortest_s=st.floats(1, 600),
    drain_s=st.floats(0, 500),
    start_margin_s=st.floats(0, 300),
    step_s=st.sampled_from([1.0, 60.0]),
    queue=st.sampled_from([None, "a"]),
)
windows_ = st.none() | st.lists(
    st.builds(
        BackfillWindow,
        queue=st.sampled_from([None, "a"]),
        nodes=st.integers(1, 40),
        seconds=st.none() | st.floats(1, 1e5),
    ),
    max_size=8,
)
work_ = st.builds(
    WorkAtHand,
    loose=st.lists(
        st.builds(LooseWork, nodes=st.integers(1, 100), seconds=st.floats(0, 1e5)), max_size=3
    ).map(tuple),
    rigid=st.lists(st.builds(RigidJob, nodes=st.integers(1, 60), seconds=st.floats(1, 1e5)), max_size=5).map(
        tuple
    ),
)
held_ = st.lists(
    st.builds(
        Held,
        nodes=st.integers(1, 20),
        seconds=st.floats(0, 1e4),
        queue=st.sampled_from([None, "a"]),
        queued=st.booleans(),
        in_window=st.booleans(),
    ),
    max_size=5,
)


@settings(deadline=None)
@given(rules=rules_, windows=windows_, work=work_, held=held_)
def test_limits_are_kept(
    rules: RequestRules, windows: list[BackfillWindow] | None, work: WorkAtHand, held: list[Held]
) -> None:
    """Whatever comes in: allocations, nodes and walltimes stay inside the bounds, and silence is explained."""
    plan = plan_requests(windows, rules, work, held)
    if plan.requests:
        assert len(plan.requests) + len(held) <= rules.allocations
        assert sum(r.nodes for r in plan.requests) + sum(h.nodes for h in held) <= rules.nodes
    for request in plan.requests:
        assert rules.fewest_nodes <= request.nodes <= (rules.most_nodes or request.nodes)
        assert rules.shortest_s <= request.walltime_s <= rules.longest_s + 1e-6
        assert request.walltime_s > rules.drain_s
        whole = pytest.approx(round(request.walltime_s / rules.step_s))
        assert request.walltime_s / rules.step_s == whole or request.walltime_s == rules.longest_s
    assert plan.requests or plan.refusals
    assert all(plan.explain())


@settings(deadline=None)
@given(rules=rules_, windows=windows_, work=work_, held=held_)
def test_requests_fit_their_windows_together(
    rules: RequestRules, windows: list[BackfillWindow] | None, work: WorkAtHand, held: list[Held]
) -> None:
    """All requests for holes can start at once and end in time; at most one waits without a hole."""
    plan = plan_requests(windows, rules, work, held)
    fitted = [r for r in plan.requests if r.window is not None]
    for request in fitted:
        long = [r for r in fitted if r.queue == request.queue and r.walltime_s >= request.walltime_s]
        needed = request.walltime_s + rules.start_margin_s - 1e-6
        assert sum(r.nodes for r in long) <= nodes_for(windows or (), request.queue, needed)
    waiting = [h for h in held if h.queued and h.queue == rules.queue]
    assert len(plan.requests) - len(fitted) <= (0 if waiting or fitted else 1)


@settings(deadline=None, max_examples=50)
@given(rules=rules_, windows=windows_, work=work_, held=held_)
def test_the_same_situation_gives_the_same_plan(
    rules: RequestRules, windows: list[BackfillWindow] | None, work: WorkAtHand, held: list[Held]
) -> None:
    """Neither chance nor the order of the windows decides anything."""
    plan = plan_requests(windows, rules, work, held)
    turned = None if windows is None else windows[::-1]
    assert plan_requests(turned, rules, work, held[::-1]) == plan


@given(
    jobs=st.lists(st.builds(RigidJob, nodes=st.integers(1, 20), seconds=st.floats(1, 100)), max_size=12),
    nodes=st.integers(1, 30),
    seconds=st.floats(1, 200),
)
def test_jobs_beside_each_other_fit(jobs: list[RigidJob], nodes: int, seconds: float) -> None:
    """What is said to fit into a shape fits, and fits again into the part that is said to be needed."""
    placed = place_beside(jobs, nodes, seconds)
    assert placed.nodes == sum(j.nodes for j in placed.jobs) <= nodes
    assert placed.seconds <= seconds
    assert placed.node_seconds <= placed.nodes * placed.seconds * (1 + 1e-9)
    assert place_beside(placed.jobs, placed.nodes, placed.seconds) == placed
