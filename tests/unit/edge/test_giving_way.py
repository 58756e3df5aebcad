"""When a pack of events gives way to more urgent events: the rule, over whole plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.edge import small_site

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.packing.forecast import Forecast, QueueWait
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.planning.actions import (
    Action,
    AddPack,
    EndPart,
    FeedPack,
    FreeNodes,
    PackPlan,
    Plan,
    Reason,
    Share,
)
from hpcpanda.planning.giving_way import CLEARLY, LEAST_RUN_S, SOON_S, WORTH_S
from hpcpanda.planning.planner import make_plan
from hpcpanda.planning.situation import AllocationView, PackView, PartView, Situation, TaskView

SITE = small_site(Path("/spool"), nodes=4, allocations=1, lookahead_s=10.0)
"""4 nodes of 2 cores, one allocation of 60 s."""
NOW = 1000.0
LONG = TaskView(task_id=1, event_seconds=0.1)
URGENT = TaskView(task_id=2, event_seconds=0.1, ready=10, priority=CLEARLY)


def stream(
    task_id: int = 1, *, begun: float = NOW - 100.0, since: float | None = NOW - 90.0, **more: object
) -> PartView:
    """Events of a task in a pack, and since when."""
    values = {"backlog_s": 9.0, "held": 100} | more
    return PartView(task_id=task_id, begun=begun, since=since, **values)  # type: ignore[arg-type]


def pack(*parts: PartView, nodes: int = 4, pack_id: str = "p1", **more: object) -> PackView:
    values = {"cores": 2 * nodes, "job_cores": 0} | more
    return PackView(pack_id=pack_id, kind="work", nodes=nodes, parts=parts or (stream(),), **values)  # type: ignore[arg-type]


def allocation(*packs: PackView, seconds_left: float = 50.0, name: str = "a1") -> AllocationView:
    return AllocationView(
        allocation_id=name, nodes=4, packs=packs, accepts=True, running=True, seconds_left=seconds_left
    )


def plan(*tasks: TaskView, allocations: tuple[AllocationView, ...], **more: object) -> Plan:
    values = {"site": SITE, "now": NOW} | more
    return make_plan(Situation(tasks=tasks, allocations=allocations, **values))  # type: ignore[arg-type]


def freed(found: Plan) -> list[str]:
    return [a.pack_id for a in found.actions if isinstance(a, FreeNodes)]


def moved(pack_id: str = "p1", *, nodes: int = 1, events: int = 10) -> tuple[Action, ...]:
    """A pack ends, and one of the urgent task gets its nodes."""
    work = PackPlan(kind="work", nodes=nodes, work=(Share(task_id=2, events=events),))
    return AddPack(allocation_id="a1", pack=work), FreeNodes(allocation_id="a1", pack_id=pack_id, for_task=2)


def test_a_pack_ends_for_events_of_clearly_higher_priority():
    """The other pack is told of at once, and starts on as many of the nodes as it can use when they are free."""
    found = plan(LONG, URGENT, allocations=(allocation(pack()),))
    assert found.actions == moved()
    assert found.reasons == {1: Reason.RUNNING, 2: Reason.STARTING}


def test_nothing_is_placed_twice_and_nothing_asked_for_while_it_makes_place():
    """What was ready of the less urgent task is not given to the pack that ends."""
    more = replace(LONG, ready=50)
    found = plan(more, URGENT, allocations=(allocation(pack()),))
    assert found.actions[:2] == moved()
    assert not [a for a in found.actions if isinstance(a, FeedPack | EndPart)]
    begun = pack(PartView(task_id=2, held=10), nodes=1, pack_id="p2", cores=0, job_cores=None)
    ending = replace(pack(), draining=True)
    found = plan(LONG, replace(URGENT, ready=0), allocations=(allocation(ending, begun),))
    assert (found.actions, found.wants) == ((), ())


@pytest.mark.parametrize(
    ("running", "urgent"),
    [
        (pack(), replace(URGENT, priority=CLEARLY - 1)),
        (pack(stream(since=None)), URGENT),
        (pack(stream(since=NOW - LEAST_RUN_S + 1)), URGENT),
        (pack(stream(begun=NOW - 100.0, since=NOW - 40.0)), URGENT),
        (pack(job_cores=1), URGENT),
        (pack(stream(), PartView(task_id=7, of_jobs=True, held=1)), URGENT),
        (pack(cores=0), URGENT),
        (pack(), replace(URGENT, event_seconds=30.0)),
        (pack(), replace(URGENT, not_before=NOW + 1.0)),
    ],
    ids=[
        "hardly more urgent",
        "nothing finished",
        "just begun",
        "a long beginning",
        "jobs run",
        "jobs wait",
        "it starts",
        "no time for two events",
        "backs off",
    ],
)
def test_a_pack_is_not_interrupted(running: PackView, urgent: TaskView):
    """Where it would be for little, for nothing, or a job."""
    jobs = TaskView(task_id=7, job=JobRequest(walltime_s=20.0, memory_mb=100))
    assert freed(plan(LONG, jobs, urgent, allocations=(allocation(running),))) == []


def test_a_pack_that_was_just_given_more_can_be_interrupted():
    """That it has no jobs is known from what it was given, whether or not it has said so since."""
    assert freed(plan(LONG, URGENT, allocations=(allocation(pack(job_cores=None)),))) == ["p1"]


def test_a_pack_that_gets_jobs_in_this_round_is_not_interrupted():
    """Jobs have nodes before events have them, also before urgent ones."""
    request = JobRequest(walltime_s=20.0, memory_mb=100)
    jobs = TaskView(task_id=7, job=request, ready=3)
    found = plan(LONG, jobs, URGENT, allocations=(allocation(pack()),))
    assert freed(found) == []
    assert FeedPack(allocation_id="a1", pack_id="p1", share=Share(task_id=7, events=3)) in found.actions


def test_a_pack_is_not_interrupted_shortly_before_its_allocation_ends():
    """Its nodes are gone then."""
    assert freed(plan(LONG, URGENT, allocations=(allocation(pack(), seconds_left=WORTH_S - 1),))) == []
    assert freed(plan(LONG, URGENT, allocations=(allocation(pack(), seconds_left=WORTH_S),))) == ["p1"]


def test_free_nodes_are_taken_first():
    """Those of a running allocation, of a window, of a queue that is known to be short or of which nothing is known."""
    found = plan(LONG, URGENT, allocations=(allocation(pack(nodes=3)),))
    assert freed(found) == []
    assert [a.pack.work[0].task_id for a in found.actions if isinstance(a, AddPack)] == [2]
    site = small_site(Path("/spool"), nodes=8, allocations=2, lookahead_s=10.0)
    window = (BackfillWindow(queue=None, nodes=2, seconds=500.0),)
    for more in ({"windows": window}, {"forecast": waiting(SOON_S)}, {}):
        assert freed(plan(LONG, URGENT, allocations=(allocation(pack()),), site=site, **more)) == []


def waiting(seconds: float) -> Forecast:
    """What was learnt of a queue."""
    return Forecast(
        queue_waits=(QueueWait(nodes=100, seconds=1e6, median_s=seconds, p90_s=2 * seconds, seen=20),)
    )


def test_a_long_queue_is_not_waited_for():
    """An allocation that could be asked for is no place for urgent events when it starts in hours."""
    site = small_site(Path("/spool"), nodes=8, allocations=2, lookahead_s=10.0)
    found = plan(LONG, URGENT, allocations=(allocation(pack()),), site=site, forecast=waiting(SOON_S + 1))
    assert found.actions[:2] == moved()


def test_a_pack_without_anything_to_do_makes_place_without_ending():
    """As before: another stream takes its place at once."""
    idle = pack(stream(backlog_s=0.0, held=0, idle=True))
    found = plan(LONG, URGENT, allocations=(allocation(idle),))
    assert freed(found) == []
    assert EndPart(allocation_id="a1", pack_id="p1", task_id=1) in found.actions


def test_the_least_urgent_and_smallest_pack_that_is_enough_ends():
    """So that as little as can be is interrupted."""
    tasks = (LONG, replace(LONG, task_id=3, priority=-3), replace(URGENT, priority=100))
    packs = (
        pack(nodes=1, pack_id="p1"),
        pack(stream(3), nodes=1, pack_id="p2"),
        pack(stream(3), nodes=2, pack_id="p3"),
    )
    assert freed(plan(*tasks, allocations=(allocation(*packs),))) == ["p2"]
    much = replace(tasks[2], ready=400)
    found = plan(*tasks[:2], much, allocations=(allocation(*packs),))
    assert found.actions[:2] == moved("p3", nodes=2, events=400)
    beyond = replace(tasks[2], ready=4000)
    assert freed(plan(*tasks[:2], beyond, allocations=(allocation(*packs),))) == ["p3"]


def test_a_task_that_has_a_pack_gets_another_only_for_much():
    """The few events more than its pack takes are no reason to interrupt four nodes."""
    mine = pack(stream(2, backlog_s=30.0), nodes=1, pack_id="p2")
    there = (allocation(pack(nodes=3), mine),)
    assert freed(plan(LONG, replace(URGENT, ready=20), allocations=there)) == []
    assert freed(plan(LONG, replace(URGENT, ready=400), allocations=there)) == ["p1"]


def test_a_full_edge_asks_for_what_is_more_urgent_than_the_least_urgent_it_has():
    """One question besides those for what its packs want; none while nothing could make place."""
    tasks = (LONG, replace(LONG, task_id=3, priority=7))
    packs = (pack(nodes=2), pack(stream(3), nodes=2, pack_id="p2"))
    (want,) = [w for w in plan(*tasks, allocations=(allocation(*packs),)).wants if w.lane == "urgent"]
    assert (want.above, want.only, want.cores, want.task_id) == (CLEARLY - 1, "events", 4, None)
    young = (replace(packs[0], parts=(stream(since=NOW),)), packs[1])
    (want,) = [w for w in plan(*tasks, allocations=(allocation(*young),)).wants if w.lane == "urgent"]
    assert want.above == 7 + CLEARLY - 1
    most = (replace(LONG, priority=1000 - CLEARLY + 1),)
    for others, there in (((), young[:1]), (most, packs[:1])):
        full = replace(allocation(*there), nodes=2)
        found = plan(
            *(others or tasks), allocations=(full,), site=replace(SITE, nodes=replace(SITE.nodes, count=2))
        )
        assert all(w.lane != "urgent" for w in found.wants)
