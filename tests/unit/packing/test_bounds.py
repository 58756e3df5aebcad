"""Lower bounds on small cases that can be checked in one's head, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.packing.bounding.classes import MOST_CLASSES, classes
from hpcpanda.packing.bounds import Bound, fewest_bins, lower_bound
from hpcpanda.packing.tables import JobTable, NodeTable
from tests.support.packing_families import (
    FAMILIES,
    Family,
    falkenauer_triplets,
    jobs_of,
    kind_of,
    scholl_1,
)

HOUR = 3600.0
NODE = kind_of(10, 10 * HOUR, memory_mb=100)


def jobs(
    cores: list[int], hours: list[float], memory: list[int] | None = None, nodes: list[int] | None = None
) -> JobTable:
    return jobs_of(
        np.array(cores),
        np.array(hours) * HOUR,
        memory_mb=None if memory is None else np.array(memory),
        nodes=None if nodes is None else np.array(nodes),
    )


def bound(table: JobTable, kind: NodeTable = NODE) -> Bound:
    return lower_bound(table, kind, 10 * HOUR)


def test_volume_rounds_up() -> None:
    """11 cores for all of the time need two nodes of 10, and their node time is 1.1 nodes'."""
    found = bound(jobs([1] * 11, [10] * 11))
    assert found.nodes == 2
    assert found.node_seconds >= 11 * HOUR


def test_large_jobs_exclude_each_other() -> None:
    """Three jobs of 6 of 10 cores need three nodes although their volume fills 1.8."""
    found = bound(jobs([6, 6, 6], [10, 10, 10]))
    assert found.nodes == 3
    assert found.node_seconds == pytest.approx(30 * HOUR)


def test_large_and_long_jobs_exclude_each_other() -> None:
    """Jobs of more than half of the cores for more than half of the time: no two on a node, neither beside nor after."""
    assert bound(jobs([6] * 5, [6] * 5)).nodes == 5


def test_long_jobs_overlap() -> None:
    """Jobs longer than half the time run beside each other in its middle: three of 4 cores do not fit."""
    assert bound(jobs([4] * 6, [5.1] * 6)).nodes == 3


def test_jobs_just_above_a_third() -> None:
    """Of 34 hundredths no more than two are in a node: seven jobs need four, not the three of their volume."""
    kind = kind_of(100, 10 * HOUR)
    assert bound(jobs([34] * 7, [10] * 7), kind).nodes == 4


def test_few_long_jobs_are_reduced() -> None:
    """Of few jobs that all overlap in the middle, reduction proves a node more than any function does."""
    sizes = [99, 94, 79, 64, 50, 46, 43, 37, 32, 19, 18, 7, 6, 3]
    found = bound(jobs(sizes, [6] * len(sizes)), kind_of(100, 10 * HOUR))
    assert (found.nodes, found.by) == (7, "cores, reduction; time, more than half")


def test_few_large_jobs_are_reduced_in_time() -> None:
    """The same with cores and time exchanged."""
    hours = [9.9, 9.4, 7.9, 6.4, 5.0, 4.6, 4.3, 3.7, 3.2, 1.9, 1.8, 0.7, 0.6, 0.3]
    found = bound(jobs([6] * len(hours), hours))
    assert (found.nodes, found.by) == (7, "cores, more than half; time, reduction")


def test_two_resources_together() -> None:
    """Jobs of 0.6 cores and 0.5 memory, or the reverse: no two fit, which only the sum of both resources shows."""
    found = bound(jobs([6, 5] * 4, [10] * 8, memory=[50, 60] * 4))
    assert found.nodes == 8
    assert found.by.startswith("cores+memory_mb")


def test_all_of_one_resource_leaves_the_other_idle() -> None:
    """Jobs of all the memory and few cores fill a node each, others its cores: two and two nodes, by volume 2.4 in all."""
    found = bound(jobs([2] * 4 + [5] * 8, [5] * 12, memory=[100] * 4 + [10] * 8))
    assert found.nodes == 4
    assert found.by.startswith("cores beside memory_mb")
    assert found.node_seconds >= 40 * HOUR


def test_nearly_all_of_one_resource_leaves_the_other_nearly_idle() -> None:
    """Beside 9 tenths of the memory, jobs of twice the share of cores fill two tenths of the cores and no more."""
    assert bound(jobs([1] * 10 + [2] * 25, [10] * 35, memory=[90] * 10 + [10] * 25)).nodes == 13


def test_resources_are_no_sides_of_a_rectangle() -> None:
    """Much of one resource beside much of another is one node, though both are more than half."""
    assert bound(jobs([6, 1], [10, 10], memory=[10, 60])).nodes == 1


def test_jobs_of_several_nodes_count_whole() -> None:
    """Two jobs of 3 nodes, longer than half the time, need 6, whatever cores they name."""
    assert bound(jobs([1, 1], [6, 6], nodes=[3, 3])).nodes == 6


def test_the_widest_job() -> None:
    """A short job of 7 nodes needs 7 nodes at once, however little node time that is."""
    found = bound(jobs([10, 1], [0.5, 1], nodes=[7, 1]))
    assert (found.nodes, found.by) == (7, "the widest job")
    assert found.node_seconds >= 3.5 * HOUR


def test_a_wide_job_beside_long_ones() -> None:
    """A job of 5 nodes for a little over 3 hours, and three nodes for 7 of 10 hours: all run at once at some time, on 8 nodes."""
    found = bound(jobs([10] * 4, [3.1, 7, 7, 7], nodes=[5, 1, 1, 1]))
    assert (found.nodes, found.by) == (8, "cores, all at once")
    assert bound(jobs([10] * 4, [3, 7, 7, 7], nodes=[5, 1, 1, 1])).nodes == 5


def test_deadlines_crowd_jobs() -> None:
    """Four whole-node jobs of an hour, due after the first hour, need four nodes although ten hours are free."""
    table = replace(jobs([10] * 4, [1] * 4), deadline=np.full(4, HOUR))
    found = bound(table)
    assert found.nodes == 4
    assert "between 0 s and 3600 s" in found.by


def test_late_jobs_crowd_too() -> None:
    """Whole-node jobs of two hours that may begin only two and a half hours before the end: a node each."""
    table = replace(jobs([10] * 3, [2] * 3), not_before=np.full(3, 7.5 * HOUR))
    assert bound(table).nodes == 3


def test_nodes_may_be_free_later() -> None:
    """Times count from when the node is free: a deadline six hours after 0 leaves one hour of a node free after five."""
    table = replace(jobs([10] * 2, [1] * 2), deadline=np.full(2, 6 * HOUR))
    later = replace(NODE, free_from=np.array([5 * HOUR]), free_until=np.array([15 * HOUR]))
    assert bound(table).nodes == 1
    assert bound(table, later).nodes == 2


def test_a_node_is_held_as_long_as_its_longest_job() -> None:
    """One long job of a core among nine short ones holds its node for its own length, not for the volume's."""
    assert bound(jobs([1] * 10, [8] + [0.1] * 9)).node_seconds >= 8 * HOUR


def test_nothing_needs_nothing() -> None:
    """No jobs: no nodes, and any node is one too many."""
    found = bound(jobs([], []))
    assert (found.nodes, found.node_seconds) == (0, 0.0)
    assert found.distance(0) == 0.0
    assert found.distance(1) == 1.0


def test_distance_is_the_share_of_too_many() -> None:
    """101 nodes where 100 are proven are 1 % from the best at most."""
    assert Bound(nodes=100, node_seconds=0.0, by="").distance(101) == pytest.approx(0.01)


def test_zero_demands_still_need_a_node() -> None:
    """A job that asks for no time and no cores needs a node to run on."""
    assert bound(jobs([0], [0])).nodes == 1


@pytest.mark.parametrize(
    ("table", "field"),
    [
        (jobs([1, 11], [1, 1]), "cores"),
        (jobs([-1], [1]), "cores"),
        (jobs([1], [1], memory=[101]), "memory_mb"),
        (jobs([1], [10.1]), "seconds"),
        (jobs([1], [float("nan")]), "seconds"),
        (jobs([1], [-1]), "seconds"),
        (replace(jobs([1], [2]), deadline=np.array([HOUR])), "seconds"),
        (replace(jobs([1], [2]), not_before=np.array([9 * HOUR])), "seconds"),
        (jobs([1], [1], nodes=[0]), "nodes"),
    ],
)
def test_jobs_that_fit_nowhere_are_refused(table: JobTable, field: str) -> None:
    """A job that no node can run has no bound; the refusal names the field and the job."""
    with pytest.raises(InvalidValue, match=f"{field}: job {len(table) - 1} ") as refused:
        bound(table)
    assert refused.value.field == field


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_of_no_length_is_refused(seconds: float) -> None:
    """Nodes that are never free, or for ever, have no bound."""
    with pytest.raises(InvalidValue, match="seconds"):
        lower_bound(jobs([1], [1]), NODE, seconds)


def test_one_kind_only() -> None:
    """Two kinds of nodes are two questions."""
    with pytest.raises(InvalidValue, match="has 2 rows"):
        bound(jobs([1], [1]), kind_of(10, 10 * HOUR, memory_mb=100, count=2))


@pytest.mark.parametrize(
    ("sizes", "capacity", "bins"),
    [
        ([], 10, 0),
        ([10, 10], 10, 2),
        ([5, 5, 5], 10, 2),
        ([6, 6, 4, 4], 10, 2),
        ([6, 6, 5, 5], 10, 3),
        ([51, 27, 26, 23, 23], 100, 2),
        ([99, 94, 79, 64, 50, 46, 43, 37, 32, 19, 18, 7, 6, 3], 100, 7),
    ],
)
def test_bins(sizes: list[int], capacity: int, bins: int) -> None:
    """Bins of small instances; the last is an example that no single function proves, only reduction."""
    assert fewest_bins(np.array(sizes, np.int64), capacity) == bins


@pytest.mark.parametrize(("sizes", "capacity"), [([11], 10), ([-1], 10), ([1], 0)])
def test_impossible_items_are_refused(sizes: list[int], capacity: int) -> None:
    """An item larger than a bin, or less than nothing, and a bin that holds nothing."""
    with pytest.raises(InvalidValue):
        fewest_bins(np.array(sizes), capacity)


def test_triplets_are_bounded_exactly() -> None:
    """Falkenauer's triplets fill n/3 bins; the bound says so."""
    instance = falkenauer_triplets(249, 1)
    assert fewest_bins(instance.sizes, instance.capacity) == instance.optimum == 83


def test_better_than_volume_on_a_classic_instance() -> None:
    """On a set of Scholl's with large items the bound is above the volume's."""
    instance = scholl_1(50, 150, 20, 0)
    assert fewest_bins(instance.sizes, instance.capacity) > -(-instance.sizes.sum() // instance.capacity)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("n", [100, 20_000])
def test_never_below_the_volume(family: Family, n: int) -> None:
    """Grouping thousands of distinct sizes loses nothing of the volume of any resource."""
    table = family.jobs(n, 1)
    found = lower_bound(table, family.kind, family.seconds)
    for resource in ("cores", "memory_mb", "gpus"):
        capacity = getattr(family.kind, resource)[0]
        share = np.where(table.nodes > 1, table.nodes, getattr(table, resource) / max(1, capacity))
        volume = float(share @ table.seconds)
        assert found.node_seconds >= volume * (1 - 1e-9)
        assert found.nodes >= volume / family.seconds - 1e-6


def test_classes_of_many_sizes() -> None:
    """Of 200 000 distinct sizes there are about a thousand classes, none larger than its members, the smallest kept."""
    sizes = np.random.default_rng(1).integers(7, 10**9, 200_000)
    grouped = classes(sizes, 10**9)
    rounded = grouped.sizes[grouped.of]
    assert len(grouped.sizes) <= MOST_CLASSES
    assert (rounded <= sizes).all()
    assert np.abs(sizes - rounded).mean() < 2 * 10**9 / MOST_CLASSES
    assert (np.diff(grouped.sizes) > 0).all()
