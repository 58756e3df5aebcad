"""Whatever the jobs and nodes: no room is overfull, nothing is lost, times and priorities are kept, nothing placed moves."""

from __future__ import annotations

from dataclasses import fields, replace
from math import inf

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.packing.placement import Plan, nodes_needed, place
from hpcpanda.packing.tables import ANYWHERE, JobShape, JobTable, NodeTable, Placement
from tests.support.packing_plans import check


@st.composite
def shapes(draw: st.DrawFn) -> JobShape:
    """A job; some of them fit nowhere."""
    begin = draw(st.sampled_from([-inf, -inf, 0.0, 3.0, 7.5]))
    return JobShape(
        cores=draw(st.integers(0, 9)),
        memory_mb=draw(st.integers(0, 40)),
        gpus=draw(st.sampled_from([0, 0, 0, 1, 2])),
        disk_mb=draw(st.integers(0, 3)),
        nodes=draw(st.sampled_from([1, 1, 1, 1, 2, 3])),
        seconds=draw(st.one_of(st.integers(1, 20).map(float), st.floats(0.1, 20.0))),
        priority=draw(st.sampled_from([0, 0, 1, 5])),
        not_before=begin,
        deadline=draw(st.sampled_from([inf, inf, 12.0, 18.0])),
        affinity=draw(st.integers(-1, 4)),
    )


@st.composite
def node_tables(draw: st.DrawFn) -> NodeTable:
    """Nodes of two kinds, some freed later."""
    count = draw(st.integers(1, 5))
    kinds = draw(st.lists(st.sampled_from([(8, 32, 0, 4), (4, 64, 2, 4)]), min_size=count, max_size=count))
    begin = draw(st.lists(st.sampled_from([0.0, 0.0, 2.5, 6.0]), min_size=count, max_size=count))
    length = draw(st.lists(st.sampled_from([0.0, 8.0, 20.0, 20.0]), min_size=count, max_size=count))
    columns = np.array(kinds, dtype=np.int64).T
    return NodeTable(
        cores=columns[0],
        memory_mb=columns[1],
        gpus=columns[2],
        disk_mb=columns[3],
        free_from=np.array(begin),
        free_until=np.array(begin) + np.array(length),
    )


def many(least: int = 0, most: int = 70) -> st.SearchStrategy[list[JobShape]]:
    """Jobs: a few different ones, most of them several times, as tasks have them."""
    groups = st.lists(st.tuples(shapes(), st.integers(1, 12)), min_size=least, max_size=10)
    return groups.map(lambda found: [shape for shape, times in found for _ in range(times)][:most])


def same(one: Placement, other: Placement) -> bool:
    return (
        np.array_equal(one.node, other.node)
        and np.array_equal(one.start, other.start, equal_nan=True)
        and one.others == other.others
    )


@settings(max_examples=70, deadline=None)
@given(many(), node_tables())
def test_a_placement_keeps_every_rule(jobs: list[JobShape], nodes: NodeTable) -> None:
    """No capacity is exceeded at any time, all times are kept, jobs of several nodes have them whole and together."""
    table = JobTable.of(jobs)
    plan = place(table, nodes)
    check(table, nodes, plan)
    assert len(plan.node) == len(jobs)
    assert (np.isnan(plan.start) == (plan.node == ANYWHERE)).all(), "every job is placed, or said not to be"


@settings(max_examples=50, deadline=None)
@given(many(), node_tables())
def test_equal_input_gives_equal_output(jobs: list[JobShape], nodes: NodeTable) -> None:
    """A placement depends on nothing but jobs and nodes."""
    assert same(place(JobTable.of(jobs), nodes), place(JobTable.of(jobs), nodes))


@settings(max_examples=70, deadline=None)
@given(many(), node_tables(), st.sampled_from([0, 1, 5]))
def test_a_higher_priority_never_loses_its_place(jobs: list[JobShape], nodes: NodeTable, least: int) -> None:
    """Jobs of lower priority change nothing for those above them."""
    table = JobTable.of(jobs)
    kept = np.flatnonzero(table.priority >= least)
    above = JobTable(**{f.name: getattr(table, f.name)[kept] for f in fields(table)})
    everything, alone = place(table, nodes), place(above, nodes)
    assert np.array_equal(everything.node[kept], alone.node)
    assert np.array_equal(everything.start[kept], alone.start, equal_nan=True)


@settings(max_examples=70, deadline=None)
@given(many(most=40), node_tables())
def test_what_is_not_placed_does_not_fit_any_more(jobs: list[JobShape], nodes: NodeTable) -> None:
    """No job is left out that could be added to the placement without moving another."""
    table = JobTable.of(jobs)
    result = place(table, nodes)
    plan = Plan.of(table, nodes, result)
    for job in np.flatnonzero(~result.placed).tolist():
        assert plan.add(job, table.row(job)) is None


@settings(max_examples=70, deadline=None)
@given(shapes(), node_tables())
def test_a_job_that_fits_alone_finds_its_place(job: JobShape, nodes: NodeTable) -> None:
    """On empty nodes a job is placed exactly when enough of them are large enough and free for long enough together."""
    enough = np.ones(len(nodes), dtype=np.bool_)
    for name in ("cores", "memory_mb", "gpus", "disk_mb"):
        enough &= getattr(nodes, name) >= getattr(job, name)
    begin = np.maximum(nodes.free_from, job.not_before)
    end = np.minimum(nodes.free_until, job.deadline)
    fits = any(
        (enough & (begin <= start) & (end >= start + job.seconds)).sum() >= job.nodes
        for start in begin.tolist()
    )
    near = any(
        (enough & (begin <= start) & (end >= start + job.seconds - 1e-5)).sum() >= job.nodes
        for start in begin.tolist()
    )
    if fits == near:
        assert bool(place(JobTable.of([job]), nodes).placed[0]) == fits


@settings(max_examples=60, deadline=None)
@given(many(least=1), st.randoms(use_true_random=False))
def test_the_order_of_jobs_hardly_matters(jobs: list[JobShape], order: object) -> None:
    """Jobs in another order need as many nodes, or one in ten and one more or less."""
    jobs = [replace(job, cores=min(job.cores, 8), memory_mb=min(job.memory_mb, 32), gpus=0) for job in jobs]
    mixed = list(jobs)
    order.shuffle(mixed)  # type: ignore[attr-defined]
    kind = NodeTable.alike(1, cores=8, memory_mb=32, disk_mb=4, free_until=20.0)
    counts = [nodes_needed(JobTable.of(some), kind, 20.0, effort=0)[0] for some in (jobs, mixed)]
    assert abs(counts[0] - counts[1]) <= 1 + max(counts) // 10


@settings(max_examples=50, deadline=None)
@given(many(least=1, most=40), st.sampled_from([0, 500]))
def test_the_nodes_that_are_needed_are_enough(jobs: list[JobShape], effort: int) -> None:
    """All jobs have a place on the nodes counted, every rule is kept, and effort never makes it more nodes."""
    jobs = [
        replace(job, cores=min(job.cores, 8), memory_mb=min(job.memory_mb, 32), not_before=-inf, deadline=inf)
        for job in jobs
    ]
    table = JobTable.of(jobs)
    kind = NodeTable.alike(1, cores=8, memory_mb=32, gpus=2, disk_mb=4, free_until=20.0)
    count, plan = nodes_needed(table, kind, 20.0, effort=effort)
    nodes = NodeTable.alike(count, cores=8, memory_mb=32, gpus=2, disk_mb=4, free_until=20.0)
    assert plan.placed.all()
    check(table, nodes, plan)
    assert count <= nodes_needed(table, kind, 20.0, effort=0)[0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 32), st.floats(0.5, 20.0)), min_size=1, max_size=60
    ),
    st.sampled_from(["same cores", "all at once"]),
)
def test_special_cases_keep_every_rule(found: list[tuple[int, int, float]], case: str) -> None:
    """Jobs that are alike in cores, or that all overlap, are placed in ways of their own: feasible, and never more nodes."""
    jobs = [
        JobShape(cores=2, memory_mb=memory, seconds=seconds)
        if case == "same cores"
        else JobShape(cores=cores, memory_mb=memory, seconds=10.0 + seconds / 2.1)
        for cores, memory, seconds in found
    ]
    table = JobTable.of(jobs)
    kind = NodeTable.alike(1, cores=20, memory_mb=32, free_until=20.0)
    count, plan = nodes_needed(table, kind, 20.0, effort=500)
    nodes = NodeTable.alike(count, cores=20, memory_mb=32, free_until=20.0)
    assert plan.placed.all()
    check(table, nodes, plan)
    assert count <= nodes_needed(table, kind, 20.0, effort=0)[0]
    assert same(plan, nodes_needed(table, kind, 20.0, effort=500)[1])


@settings(max_examples=50, deadline=None)
@given(many(least=1, most=40), node_tables(), st.data())
def test_a_plan_changes_job_by_job(jobs: list[JobShape], nodes: NodeTable, data: st.DataObject) -> None:
    """Adding, removing and shrinking in any order keeps every rule and the place of everything else."""
    plan = Plan(nodes)
    inside: dict[int, JobShape] = {}
    for number, job in enumerate(jobs):
        before = {n: plan.place(n) for n in inside}
        action = data.draw(st.sampled_from(["add", "add", "remove", "shrink"]))
        if action == "add" or not inside:
            if plan.add(number, job) is not None:
                inside[number] = job
        else:
            chosen = data.draw(st.sampled_from(sorted(inside)))
            before.pop(chosen)
            if action == "remove":
                plan.remove(chosen)
                del inside[chosen]
            else:
                old = inside[chosen]
                less = replace(
                    old, cores=old.cores // 2, memory_mb=old.memory_mb // 2, seconds=old.seconds / 2
                )
                plan.shrink(chosen, less)
                inside[chosen] = less
        assert {n: plan.place(n) for n in before} == before
        assert len(plan) == len(inside)
    _check_plan(plan, inside, nodes)


def _check_plan(plan: Plan, inside: dict[int, JobShape], nodes: NodeTable) -> None:
    numbers = sorted(inside)
    places = [plan.place(n) for n in numbers]
    placement = Placement(
        node=np.array([p.nodes[0] for p in places], dtype=np.int64),
        start=np.array([p.start for p in places]),
        others={i: p.nodes[1:] for i, p in enumerate(places) if len(p.nodes) > 1},
    )
    check(JobTable.of(inside[n] for n in numbers), nodes, placement)


@settings(max_examples=60, deadline=None)
@given(many(least=1, most=40), node_tables())
def test_a_smaller_job_never_costs_a_place(jobs: list[JobShape], nodes: NodeTable) -> None:
    """When a placed job shrinks, the plan keeps all that it had, and still takes what it would have taken before."""
    table = JobTable.of(jobs)
    result = place(table, nodes)
    one = Plan.of(table, nodes, result)
    other = Plan.of(table, nodes, result)
    for job in np.flatnonzero(result.placed).tolist():
        shape = table.row(job)
        other.shrink(job, replace(shape, cores=shape.cores // 2, seconds=shape.seconds / 2))
    more = JobShape(cores=2, memory_mb=3, seconds=1.5)
    assert len(other) == len(one)
    if one.add(-1, more) is not None:
        assert other.add(-1, more) is not None


@settings(max_examples=60, deadline=None)
@given(many(least=1, most=30), node_tables())
def test_removing_all_leaves_empty_nodes(jobs: list[JobShape], nodes: NodeTable) -> None:
    """A plan from which everything was removed takes any job that fills a node for all of its time."""
    table = JobTable.of(jobs)
    result = place(table, nodes)
    plan = Plan.of(table, nodes, result)
    for job in np.flatnonzero(result.placed).tolist():
        plan.remove(job)
    for node in np.flatnonzero(nodes.free_until > nodes.free_from).tolist():
        whole = JobShape(
            cores=int(nodes.cores[node]),
            memory_mb=int(nodes.memory_mb[node]),
            gpus=int(nodes.gpus[node]),
            disk_mb=int(nodes.disk_mb[node]),
            seconds=float(nodes.free_until[node] - nodes.free_from[node]),
        )
        assert plan.add(1000, whole) is not None
        plan.remove(1000)
