"""Jobs that all run at once: sets that fill a node are found, in all dimensions, within the steps that are given."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.packing.bounds import fewest_bins
from hpcpanda.packing.placing.bins import best_set, binned
from tests.support.packing_families import Classic, falkenauer_triplets, falkenauer_uniform, scholl_3


def test_the_set_that_fills_the_node_is_found() -> None:
    """5 and 4 leave one of 10, as the largest first would have it; 5, 3 and 2 leave none."""
    chosen, tried = best_set([(5.0,), (4.0,), (3.0,), (2.0,)], [5.0, 4.0, 3.0, 2.0], [1] * 4, (10.0,), 100)
    assert chosen == [0, 2, 3]
    assert tried < 10


def test_a_kind_is_taken_as_often_as_there_are_jobs_of_it() -> None:
    """Two jobs of 3 beside one of 4, then none of 3 is left for the rest."""
    chosen, _ = best_set([(4.0,), (3.0,)], [4.0, 3.0], [1, 2], (14.0,), 100)
    assert chosen == [0, 1, 1]


def test_every_dimension_is_looked_at() -> None:
    """The job that would fill the cores has no memory left for it."""
    demands = [(5.0, 6.0), (5.0, 5.0), (4.0, 4.0)]
    chosen, _ = best_set(demands, [5.0, 5.0, 4.0], [1] * 3, (10.0, 10.0), 100)
    assert chosen == [0, 2]


def test_no_more_is_tried_than_allowed() -> None:
    """What was found by then is a set that fits, with the first job in it."""
    sizes = [float(s) for s in range(90, 20, -1)]
    chosen, tried = best_set([(s,) for s in sizes], sizes, [1] * len(sizes), (1000.5,), 60)
    assert tried == 60
    assert chosen[0] == 0
    assert sum(sizes[k] for k in chosen) <= 1000.5


def bins_of(instance: Classic, steps: int) -> int:
    """Bins for a classic instance; none is overfull, none empty, and no item lost."""
    bound = instance.optimum or fewest_bins(instance.sizes, instance.capacity)
    demand = instance.sizes[:, None].astype(np.float64)
    node = binned(demand, np.array([float(instance.capacity)]), bound=bound, steps=steps)
    assert len(node) == len(instance.sizes)
    level = np.bincount(node, weights=instance.sizes)
    assert 0 < level.min() <= level.max() <= instance.capacity
    return len(level)


@pytest.mark.parametrize("seed", range(3))
def test_triplets_take_at_most_one_bin_too_many(seed: int) -> None:
    """Instances that have no slack at all and defeat greedy placement by a fifth."""
    for n in (60, 120):
        assert bins_of(falkenauer_triplets(n, seed), 20_000) <= n // 3 + 1


@pytest.mark.parametrize("seed", range(3))
def test_uniform_items_take_the_fewest_bins(seed: int) -> None:
    """As many bins as the bound says, or one more."""
    instance = falkenauer_uniform(250, seed)
    assert bins_of(instance, 20_000) <= fewest_bins(instance.sizes, instance.capacity) + 1


def test_large_items_of_many_sizes() -> None:
    """200 sizes, all different, three to a bin and some two: within two bins of the bound."""
    instance = scholl_3(0)
    assert bins_of(instance, 20_000) <= fewest_bins(instance.sizes, instance.capacity) + 2


def test_emptying_nodes_again_finds_fewer() -> None:
    """More steps are never worse, and better for some of these."""
    instances = [falkenauer_uniform(120, seed) for seed in range(6)] + [scholl_3(seed) for seed in range(2)]
    few, many = (np.array([bins_of(i, steps) for i in instances]) for steps in (1, 20_000))
    assert (many <= few).all()
    assert many.sum() < few.sum()
