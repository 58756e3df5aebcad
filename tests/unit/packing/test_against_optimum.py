"""Placement against the proven optimum on small instances, and the checks that say so against plans that are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from hpcpanda.packing.bounds import fewest_bins, lower_bound
from hpcpanda.packing.placement import nodes_needed, place
from hpcpanda.packing.tables import Placement
from tests.support.packing_families import (
    FAMILIES,
    HOUR,
    Classic,
    Family,
    falkenauer_triplets,
    falkenauer_uniform,
    jobs_of,
    kind_of,
    scholl_1,
)
from tests.support.packing_oracle import Small, Unproven, arc_flow, by_patterns, by_time, fewest_nodes
from tests.support.packing_plans import check, held_seconds

SEEDS = range(6)
SIZES = (6, 9)
EFFORT = 300
"""Placements tried for an improvement; what more of it finds is measured by the benchmark."""


def many(kind, count, seconds):
    """So many nodes of a kind for so long."""
    columns = {c: np.repeat(getattr(kind, c), count) for c in ("cores", "memory_mb", "gpus", "disk_mb")}
    return replace(kind, **columns, free_from=np.zeros(count), free_until=np.full(count, seconds))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_small_instances_are_optimal_or_one_node_off(family: Family) -> None:
    """At least 95 % of a family's small instances are at most a node off; plans and bounds enclose the optimum.

    Given one node more than the optimum, as many find a place for every job.
    """
    off: Counter[int] = Counter()
    all_placed = 0
    for seed in SEEDS:
        for n in SIZES:
            jobs = family.small(n, seed)
            count, plan = nodes_needed(jobs, family.small_kind, family.small_seconds, effort=EFFORT)
            assert plan.placed.all()
            check(jobs, many(family.small_kind, count, family.small_seconds), plan)
            best = fewest_nodes(jobs, family.small_kind, family.small_seconds, family.small_step)
            bound = lower_bound(jobs, family.small_kind, family.small_seconds)
            assert bound.nodes <= best <= count
            assert bound.node_seconds <= held_seconds(jobs, plan) * (1 + 1e-9)
            off[count - best] += 1
            nodes = many(family.small_kind, best + 1, family.small_seconds)
            given = place(jobs, nodes)
            check(jobs, nodes, given)
            all_placed += bool(given.placed.all())
    assert off[0] + off[1] >= 0.95 * off.total()
    assert off[0] >= 0.7 * off.total()
    assert all_placed >= 0.95 * off.total()


CLASSIC = {
    "uniform": partial(falkenauer_uniform, 120),
    "scholl": partial(scholl_1, 50, 150, 20),
    "triplets": partial(falkenauer_triplets, 60),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recipe", CLASSIC.values(), ids=CLASSIC)
def test_classic_instances(recipe: Callable[[int], Classic], seed: int) -> None:
    """Classic instances: feasible, and at most one bin above what an arc-flow model proves."""
    instance = recipe(seed)
    count, plan = nodes_needed(instance.jobs, instance.kind, 1.0, effort=EFFORT)
    check(instance.jobs, many(instance.kind, count, 1.0), plan)
    best = arc_flow(instance.sizes, instance.capacity, 20, integer=False)
    assert instance.optimum in (None, best)
    assert fewest_bins(instance.sizes, instance.capacity) <= best <= count
    assert count <= best + 1


def test_the_oracle_knows_time() -> None:
    """Four half-node jobs of half the time: one node by both formulations; a fifth needs a second."""
    jobs = jobs_of(np.full(4, 2), np.full(4, 2 * HOUR))
    kind = kind_of(4, 4 * HOUR)
    small = Small.of(jobs, kind, 4 * HOUR, HOUR)
    assert by_patterns(small, 10) == by_time(small, 10) == 1
    more = jobs_of(np.full(5, 2), np.full(5, 2 * HOUR))
    assert fewest_nodes(more, kind, 4 * HOUR, HOUR) == 2


def test_the_oracle_knows_what_volume_does_not() -> None:
    """Three jobs of 3 of 5 hours: they overlap, so cores of 2, 2 and 1 of 4 do not fit though their volume does."""
    jobs = jobs_of(np.array([2, 2, 1]), np.full(3, 3 * HOUR))
    assert fewest_nodes(jobs, kind_of(4, 5 * HOUR), 5 * HOUR, HOUR) == 2


def test_the_oracle_starts_wide_jobs_together() -> None:
    """A two-node job between single ones: both its nodes must be free at one time."""
    jobs = jobs_of(np.full(3, 4), np.array([1.0, 2.0, 2.0]) * HOUR, nodes=np.array([2, 1, 1]))
    assert fewest_nodes(jobs, kind_of(4, 3 * HOUR), 3 * HOUR, HOUR) == 2
    assert fewest_nodes(jobs, kind_of(4, 2 * HOUR), 2 * HOUR, HOUR) == 4


def test_the_oracle_says_when_it_does_not_know() -> None:
    """Without time there is no proof, and no number."""
    instance = falkenauer_uniform(120, 0)
    with pytest.raises(Unproven):
        arc_flow(instance.sizes, instance.capacity, 0.0)


def test_families_are_reproducible() -> None:
    """Equal seeds, equal jobs; other seeds, others; every job fits its family's nodes."""
    for family in FAMILIES.values():
        one, same, other = family.jobs(50, 1), family.jobs(50, 1), family.jobs(50, 2)
        assert (one.seconds == same.seconds).all()
        assert (one.cores == same.cores).all()
        assert (one.seconds != other.seconds).any()
        assert lower_bound(one, family.kind, family.seconds).nodes > 0
        assert lower_bound(family.small(9, 1), family.small_kind, family.small_seconds).nodes > 0


PAIR = jobs_of(np.array([3, 3]), np.array([2.0, 2.0]))
NODES = kind_of(4, 4.0, count=2)


def plan(nodes, starts, others=None):
    return Placement(node=np.array(nodes), start=np.array(starts), others=others or {})


@pytest.mark.parametrize(
    ("jobs", "wrong", "says"),
    [
        (PAIR, plan([0, 0], [0.0, 1.0]), "cores: a node is overfull"),
        (PAIR, plan([0, 1], [0.0, 3.0]), "after its node is free"),
        (PAIR, plan([0, 1], [-1.0, 0.0]), "before its node is free"),
        (PAIR, plan([0, 2], [0.0, 0.0]), "a node that does not exist"),
        (replace(PAIR, deadline=np.full(2, 3.0)), plan([0, 1], [0.0, 2.0]), "after its deadline"),
        (replace(PAIR, not_before=np.full(2, 1.0)), plan([0, 1], [0.0, 2.0]), "too early"),
        (replace(PAIR, nodes=np.array([2, 1])), plan([0, 1], [0.0, 2.0]), "nodes missing"),
        (replace(PAIR, nodes=np.array([2, 1])), plan([0, 1], [0.0, 2.0], {0: (0,)}), "twice on a node"),
        (
            replace(PAIR, nodes=np.array([2, 1])),
            plan([0, 1], [0.0, 1.0], {0: (1,)}),
            "cores: a node is overfull",
        ),
        (replace(PAIR, cores=np.array([5, 3])), plan([0, 1], [0.0, 0.0]), "cores: more than its node has"),
    ],
)
def test_wrong_plans_are_found(jobs, wrong, says) -> None:
    """The check that the tests above rely on refuses each kind of wrong plan."""
    with pytest.raises(AssertionError, match=says):
        check(jobs, NODES, wrong)


def test_right_plans_pass() -> None:
    """One after the other on a node, or beside each other on two; and they hold 4 node-seconds either way."""
    for right in (plan([0, 0], [0.0, 2.0]), plan([0, 1], [0.0, 2.0])):
        check(PAIR, NODES, right)
        assert held_seconds(PAIR, right) == pytest.approx(4.0)
