"""Placing jobs: what goes where and when, said in single cases, and how good it is on generated families."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.packing.bounds import lower_bound
from hpcpanda.packing.placement import Plan, nodes_needed, place
from hpcpanda.packing.tables import ANYWHERE, JobShape, JobTable, NodeTable
from tests.support.packing_families import FAMILIES
from tests.support.packing_plans import check


def nodes(count: int, *, cores: int = 8, until: float = 100.0) -> NodeTable:
    """Nodes in few words."""
    return NodeTable.alike(count, cores=cores, memory_mb=1000, free_until=until)


def test_no_jobs_and_no_nodes() -> None:
    """Nothing at all is a plan; jobs without nodes have no place."""
    assert len(place(JobTable.of([]), nodes(1)).node) == 0
    assert not place(JobTable.of([JobShape(seconds=1.0)]), nodes(0)).placed.any()
    assert nodes_needed(JobTable.of([]), nodes(1), 10.0)[0] == 0


def test_one_after_the_other() -> None:
    """Jobs that fill a node follow each other without a gap up to the end of its time."""
    table = JobTable.of([JobShape(cores=8, seconds=25.0)] * 4)
    assert sorted(place(table, nodes(1)).start.tolist()) == [0.0, 25.0, 50.0, 75.0]


def test_several_nodes_start_together_and_whole() -> None:
    """A job of three nodes waits for the one that is freed last, and shares none of them."""
    there = replace(nodes(3), free_from=np.array([0.0, 10.0, 40.0]))
    table = JobTable.of([JobShape(nodes=3, seconds=50.0), *[JobShape(cores=8, seconds=40.0)] * 2])
    plan = place(table, there)
    check(table, there, plan)
    assert plan.start[0] == 40.0
    assert sorted(plan.nodes_of(0)) == [0, 1, 2]
    assert plan.placed.tolist().count(True) == 2, "only the first node is free for 40 s before"


def test_a_reservation_is_filled_before_it_begins() -> None:
    """Lower priorities are backfilled in front of what was reserved, and only there."""
    table = JobTable.of(
        [
            JobShape(cores=8, seconds=50.0, priority=9, not_before=50.0),
            *[JobShape(cores=1, seconds=50.0)] * 8,
            JobShape(cores=1, seconds=51.0),
        ]
    )
    plan = place(table, nodes(1))
    assert plan.placed.tolist() == [True] * 9 + [False]
    assert plan.start[0] == 50.0


def test_many_small_jobs_around_a_reservation() -> None:
    """The filling of nodes sees bookings to come: it starts nothing that would run into one."""
    first = [JobShape(cores=6, seconds=30.0, priority=1, not_before=40.0)] * 3
    table = JobTable.of([*first, *[JobShape(cores=1, seconds=float(s)) for s in range(5, 65)]])
    there = nodes(3)
    plan = place(table, there)
    check(table, there, plan)
    assert plan.start[:3].tolist() == [40.0] * 3
    assert plan.placed.sum() > 40


def test_urgent_before_large() -> None:
    """Of jobs that cannot both be in time first, the one with the earlier deadline is."""
    table = JobTable.of(
        [JobShape(cores=8, seconds=60.0, deadline=90.0), JobShape(cores=8, seconds=30.0, deadline=30.0)]
    )
    plan = place(table, nodes(1))
    assert plan.start.tolist() == [30.0, 0.0]


def test_plain_jobs_leave_gpus_alone() -> None:
    """Where there is room elsewhere, nodes with GPUs are kept for jobs that ask for them."""
    there = replace(nodes(2), gpus=np.array([4, 0]))
    table = JobTable.of(
        [*[JobShape(cores=1, seconds=100.0)] * 8, *[JobShape(cores=2, gpus=1, seconds=90.0)] * 4]
    )
    plan = place(table, there)
    assert plan.node.tolist() == [1] * 8 + [0] * 4


def test_jobs_of_a_task_go_to_their_inputs() -> None:
    """Equal jobs are exchanged until all that can are where their inputs are; no start changes for it."""
    shapes = [JobShape(cores=4, seconds=50.0, affinity=i % 4) for i in range(16)]
    table = JobTable.of(shapes)
    plan = place(table, nodes(4))
    check(table, nodes(4), plan)
    assert (plan.node == table.affinity).all()
    blind = place(JobTable.of([replace(s, affinity=ANYWHERE) for s in shapes]), nodes(4))
    assert sorted(plan.start) == sorted(blind.start)


def test_a_job_of_its_own_goes_to_its_inputs_if_they_can_be_had_soon() -> None:
    """The node with the inputs is taken when the start is hardly later, and left when it is much later."""
    there = replace(nodes(2), free_from=np.array([0.0, 4.0]))
    soon = JobTable.of([JobShape(seconds=50.0, affinity=1)])
    assert place(soon, there).node.tolist() == [1]
    late = replace(there, free_from=np.array([0.0, 40.0]))
    assert place(soon, late).node.tolist() == [0]


def test_an_affinity_to_a_node_that_is_gone_does_no_harm() -> None:
    """A node number past the table is no node to prefer."""
    table = JobTable.of([JobShape(seconds=5.0, affinity=77)] * 2)
    assert place(table, nodes(1)).placed.all()
    plan = Plan(nodes(1))
    assert plan.add(0, table.row(0)) is not None


@pytest.mark.parametrize(
    ("column", "value"),
    [("cores", -1), ("nodes", 0), ("seconds", 0.0), ("seconds", inf), ("seconds", nan), ("deadline", nan)],
)
def test_impossible_jobs_are_refused(column: str, value: float) -> None:
    """The error names the column."""
    good = JobTable.of([JobShape(seconds=1.0)])
    column_of = getattr(good, column)
    bad = replace(good, **{column: np.array([value], dtype=column_of.dtype)})
    with pytest.raises(InvalidValue, match=column):
        place(bad, nodes(1))


def test_columns_of_different_length_are_refused() -> None:
    """A table is rows."""
    bad = replace(JobTable.of([JobShape(seconds=1.0)]), gpus=np.zeros(2, dtype=np.int64))
    with pytest.raises(InvalidValue, match="gpus"):
        place(bad, nodes(1))


def test_a_node_freed_after_its_end_is_refused() -> None:
    """Times of nodes are in order."""
    with pytest.raises(InvalidValue, match="free_until"):
        place(JobTable.of([]), nodes(1, until=-1.0))


def test_nodes_needed_refuses_a_job_that_fits_nowhere() -> None:
    """It says which job."""
    table = JobTable.of([JobShape(seconds=5.0), JobShape(cores=9, seconds=5.0)])
    with pytest.raises(InvalidValue, match="job 1"):
        nodes_needed(table, nodes(1), 10.0)


def test_rows_come_back_as_they_went_in() -> None:
    """A table made of jobs gives the same jobs."""
    shapes = [
        JobShape(seconds=1.5),
        JobShape(cores=3, gpus=1, nodes=2, seconds=2.0, deadline=9.0, affinity=4),
    ]
    table = JobTable.of(shapes)
    assert [table.row(i) for i in range(2)] == shapes


class TestPlan:
    """The plan that changes job by job."""

    def test_the_same_job_twice(self) -> None:
        """A number is in a plan once."""
        plan = Plan(nodes(1))
        plan.add(1, JobShape(seconds=1.0))
        with pytest.raises(InvalidValue, match="already"):
            plan.add(1, JobShape(seconds=1.0))

    def test_unknown_job(self) -> None:
        """What is not in a plan cannot be removed."""
        with pytest.raises(InvalidValue, match="7"):
            Plan(nodes(1)).remove(7)

    def test_shrinking_is_not_growing(self) -> None:
        """A job that needs more of anything must be added anew; the plan stays as it was."""
        plan = Plan(nodes(1))
        place_before = plan.add(1, JobShape(cores=2, seconds=5.0))
        with pytest.raises(InvalidValue, match="cores"):
            plan.shrink(1, JobShape(cores=3, seconds=5.0))
        assert plan.place(1) == place_before

    def test_removed_room_is_used_again(self) -> None:
        """A full plan takes a job after one like it was removed, in its very place."""
        plan = Plan(nodes(2))
        for job in range(2):
            plan.add(job, JobShape(cores=8, seconds=100.0))
        assert plan.add(5, JobShape(cores=8, seconds=100.0)) is None
        old = plan.remove(0)
        found = plan.add(5, JobShape(cores=8, seconds=100.0))
        assert found is not None
        assert (found.nodes, found.start) == (old.nodes, old.start)

    def test_rows_grow_with_many_jobs(self) -> None:
        """A thousand short jobs on one node each get a time of their own."""
        plan = Plan(nodes(1, cores=1, until=1000.0))
        starts = [plan.add(i, JobShape(seconds=1.0)) for i in range(1000)]
        assert [p.start for p in starts if p] == [float(i) for i in range(1000)]
        assert plan.add(1000, JobShape(seconds=0.5)) is None


OVER = {"uniform-large": 0.07, "uniform": 0.03}
"""Share of nodes over the bound, with little effort."""


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_families_are_packed_tightly(name: str) -> None:
    """3 000 jobs of each family need at most 1.5 % more nodes than the bound, or one, and keep every rule."""
    family = FAMILIES[name]
    jobs = family.jobs(3000, seed=1)
    count, plan = nodes_needed(jobs, family.kind, family.seconds, effort=6000)
    bound = lower_bound(jobs, family.kind, family.seconds).nodes
    index = np.zeros(count, dtype=np.int64)
    kind = family.kind
    there = NodeTable(
        cores=kind.cores[index],
        memory_mb=kind.memory_mb[index],
        gpus=kind.gpus[index],
        disk_mb=kind.disk_mb[index],
        free_from=np.zeros(count),
        free_until=np.full(count, family.seconds),
    )
    check(jobs, there, plan)
    assert plan.placed.all()
    assert count <= bound + max(1, OVER.get(name, 0.015) * bound), (count, bound)


def test_fixed_nodes_take_what_needs_them() -> None:
    """On 2 % more nodes than the bound, placing fits nearly all of the work of a mix of jobs."""
    family = FAMILIES["hep"]
    jobs = family.jobs(3000, seed=2)
    count = int(lower_bound(jobs, family.kind, family.seconds).nodes * 1.02) + 1
    there = NodeTable.alike(
        count,
        cores=int(family.kind.cores[0]),
        memory_mb=int(family.kind.memory_mb[0]),
        free_until=family.seconds,
    )
    plan = place(jobs, there)
    check(jobs, there, plan)
    work = jobs.cores * jobs.seconds
    assert work[plan.placed].sum() > 0.985 * work.sum()
